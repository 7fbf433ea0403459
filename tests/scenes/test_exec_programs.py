"""Unmodified programs under `attls exec`, in both roles where they have them, with the server or client they come with.

A server and its own client usually share one policy with a rule for each direction, so that a pair proves both: what
lies between them is TLS, and each believes to speak to the other in clear.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exec import stage as stages
from tests.exec.conftest import stage
from tests.exec.stage import Peer, Stage, free_port, inbound, outbound, rule

__all__ = ["stage"]
SECURED = re.compile(r"^attls: .* (->|<-) .* rule \S+: TLSv1\.3 TLS_", re.M)


def needs(*programs: str) -> None:
    """Skip where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def wait_for(port: int, host: str = "127.0.0.1") -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
            return
        assert time.monotonic() < deadline, f"nobody listens on {port}"
        time.sleep(0.05)


def page(_request: bytes) -> bytes:
    """Answer any request with a small page."""
    return b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def test_curl(stage: Stage) -> None:
    """Plain http arrives as TLS; the line on standard error names rule, protocol and cipher; output is curl's alone."""
    needs("curl")
    with Peer(stage.server_context(), answer=page) as peer:
        url = f"http://localhost:{peer.port}/"
        done = stage.run(stage.policy(outbound(peer.port)), "curl", "-sS", url, options=["--verbose"])
    assert (0, "hello") == (done.code, done.output)
    assert re.search(
        rf"^attls: curl\[\d+\] 127.0.0.1:\d+ -> 127.0.0.1:{peer.port} rule out-{peer.port}: TLSv1.3 TLS_\w+$",
        done.errors,
        re.M,
    )


def test_openssl_is_left_alone_where_policy_says_so(stage: Stage) -> None:
    """TTLSEnabled Off: the program's own TLS goes straight to the peer."""
    needs("openssl")
    with Peer(stage.server_context()) as peer:
        policy = stage.policy(rule("Own", "Outbound", peer.port, group="Off"))
        place = f"127.0.0.1:{peer.port}"
        done = stage.run(
            policy, "openssl", "s_client", "-CAfile", stage.ca, "-brief", "-verify_return_error", "-connect", place,
            input="word", options=["--verbose"],
        )  # fmt: skip
    assert 0 == done.code, done
    assert "rule Own: in clear, TTLSEnabled Off" in done.errors


def test_netcat(stage: Stage) -> None:
    """nc in both roles: what is piped through one end comes out of the other, to the last byte."""
    needs("nc", "sh")
    port = free_port()
    script = (
        f"nc -l 127.0.0.1 {port} >received & "
        f"for i in 1 2 3 4 5 6 7 8 9; do head -c 3000000 /dev/zero | nc -N 127.0.0.1 {port} && break; sleep 0.2; done; "
        "wait; wc -c <received"
    )
    with tempfile.TemporaryDirectory() as directory:
        done = stage.run(
            stage.policy(inbound(port), outbound(port)), "sh", "-c", script, options=["--verbose"], cwd=directory
        )
    assert "3000000" == done.output.strip(), done
    assert {"->", "<-"} == set(SECURED.findall(done.errors))


def test_redis(stage: Stage) -> None:
    """redis-server accepts from its event loop, redis-cli connects without blocking; a pipeline goes through both."""
    needs("redis-server", "redis-cli")
    port = free_port()
    policy = stage.policy(inbound(port), outbound(port))
    server = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    with tempfile.TemporaryDirectory() as directory, stage.start(policy, *server, cwd=directory) as process:
        wait_for(port)
        done = stage.run(
            policy, "redis-cli", "-p", str(port), input="SET key secret\nGET key\nCLIENT LIST\n", options=["--verbose"]
        )
        assert SECURED.search(done.errors), done
        assert ["OK", "secret"] == done.output.splitlines()[:2]
        # The server's own idea of its client is the client's true address.
        client = re.search(r"(127\.0\.0\.1:\d+) ->", done.errors)
        assert client is not None
        assert f"addr={client[1]}" in done.output
        process.terminate()
        assert 0 == process.wait(20)


def test_python_both_ends(stage: Stage) -> None:
    """http.server and urllib, neither of which imports ssl."""
    port = free_port()
    code = (
        "import http.server, threading, urllib.request\n"
        f"server = http.server.ThreadingHTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        f"for _ in range(5): print(urllib.request.urlopen('http://127.0.0.1:{port}/').status)\n"
    )
    done = stage.run(stage.policy(inbound(port), outbound(port)), sys.executable, "-c", code, options=["--verbose"])
    assert "200\n" * 5 == done.output, done
    assert 10 == len(SECURED.findall(done.errors))


NODE = """
const net = require('net'), port = +process.argv[1];
const server = net.createServer(s => { s.write(JSON.stringify([s.remotePort]) + '\\n'); s.pipe(s); });
server.listen(port, '127.0.0.1', () => {
  const c = net.connect(port, '127.0.0.1', () => { names = [c.localPort, c.remotePort]; c.end('from node'); });
  let heard = '', names;
  c.on('data', d => heard += d);
  c.on('end', () => {
    const [first, rest] = heard.split('\\n');
    console.log(rest, JSON.parse(first)[0] === names[0], names[1] === port);
    net.connect(1, '127.0.0.1').on('error', e => { console.log(e.code); server.close(); });
  });
});
"""


def test_node_both_ends(stage: Stage) -> None:
    """Node's event loop, its view of addresses, half-close, and a refused connection."""
    needs("node")
    port = free_port()
    policy = stage.policy(inbound(port), outbound(port), outbound(1))
    done = stage.run(policy, "node", "-e", NODE, str(port), options=["--verbose"])
    assert "from node true true\nECONNREFUSED\n" == done.output, done
    assert {"->", "<-"} == set(SECURED.findall(done.errors))


JAVA = """
import java.io.*; import java.net.*; import java.nio.*; import java.nio.channels.*;
public class Both {
  public static void main(String[] a) throws Exception {
    int port = Integer.parseInt(a[0]);
    ServerSocket server = new ServerSocket(port, 10, InetAddress.getByName("127.0.0.1"));
    Thread t = new Thread(() -> { try { for (int i = 0; i < 2; i++) { Socket s = server.accept();
      int n = s.getPort(); byte[] b = new byte[5]; s.getInputStream().readNBytes(b, 0, 5);
      s.getOutputStream().write((new String(b) + n).getBytes()); s.close(); }
    } catch (IOException e) { e.printStackTrace(); } });
    t.start();
    Socket c = new Socket("127.0.0.1", port);
    c.getOutputStream().write("hello".getBytes());
    System.out.println(new String(c.getInputStream().readAllBytes()).equals("hello" + c.getLocalPort()));
    SocketChannel n = SocketChannel.open(); n.configureBlocking(false);
    Selector q = Selector.open(); n.register(q, SelectionKey.OP_CONNECT);
    n.connect(new InetSocketAddress("127.0.0.1", port)); q.select(); System.out.println(n.finishConnect());
    n.write(ByteBuffer.wrap("again".getBytes())); n.register(q, SelectionKey.OP_READ); q.select();
    ByteBuffer r = ByteBuffer.allocate(20); n.read(r);
    System.out.println(new String(r.array(), 0, r.position()).startsWith("again"));
    t.join();
  }
}
"""


def test_java_both_ends(stage: Stage, tmp_path: Path) -> None:
    """Java's blocking sockets and its selectors, IPv6 sockets with mapped addresses as it makes them."""
    needs("java", "javac")
    port = free_port()
    (tmp_path / "Both.java").write_text(JAVA)
    policy = stage.policy(inbound(port), outbound(port))
    done = stage.run(policy, "java", tmp_path / "Both.java", str(port), options=["--verbose"])
    assert "true\n" * 3 == done.output, done
    assert 4 == len(SECURED.findall(done.errors)), done


NGINX = """
daemon off; master_process on; worker_processes 2; pid {directory}/pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
  uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
  upstream back {{ server 127.0.0.1:{back}; keepalive 8; }}
  server {{ listen 127.0.0.1:{front}{reuse}; location / {{ return 200 $remote_port; }}
    location /back {{ proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
  server {{ listen 127.0.0.1:{back}; location / {{ return 200 upstream; }} }}
}}
"""


def test_nginx_with_workers_under_wrk(stage: Stage, tmp_path: Path) -> None:
    """Two workers share listeners and proxy to a covered upstream; wrk, covered too, drives 100 connections."""
    needs("nginx", "wrk", "curl")
    front, back = free_port(), free_port()
    (tmp_path / "conf").write_text(NGINX.format(directory=tmp_path, front=front, back=back, reuse=" reuseport"))
    policy = stage.policy(inbound(front), outbound(front), inbound(back), outbound(back))
    with stage.start(policy, "nginx", "-c", tmp_path / "conf", "-e", "stderr") as process:
        wait_for(front)
        script = f"curl -sS http://127.0.0.1:{front}/back; wrk -t1 -c100 -d1s http://127.0.0.1:{front}/"
        done = stage.run(policy, "sh", "-c", script)
        assert done.output.startswith("upstream"), done
        assert "Socket errors" not in done.output, done.output
        count = re.search(r"(\d+) requests in", done.output)
        assert count is not None
        assert int(count[1]) > 100
        process.terminate()
        _, errors = process.communicate(timeout=20)
        assert 0 == process.returncode, errors


@pytest.fixture(scope="module")
def everybodys() -> Iterator[Stage]:
    """A stage that belongs to nobody, the user, with a Python that nobody can run."""
    needs("runuser")
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    python = stages.ordinary_user()
    if not python:
        pytest.skip("nobody may not read this Python or this tree")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        stages.build(Path(directory))
        subprocess.run(["chown", "-R", "nobody", directory], check=True)
        yield Stage(Path(directory), python)


def test_an_ordinary_user_needs_nothing(everybodys: Stage) -> None:
    """PostgreSQL, which refuses to be root: a server of many processes and psql, all as nobody."""
    needs("psql")
    (programs,) = list(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]  # where Debian keeps them, outside of PATH
    port = free_port()
    policy = everybodys.policy(inbound(port), outbound(port))
    data = everybodys.directory / "data"
    script = (
        f"{programs}/initdb -D {data} -U nobody -A trust --no-sync >{data}.log 2>&1 || exit 9; "
        f"{programs}/postgres -D {data} -p {port} -h 127.0.0.1 -k '' -F >>{data}.log 2>&1 & "
        f"for i in $(seq 50); do psql -h 127.0.0.1 -p {port} -U nobody -d postgres -At "
        "-c 'select inet_client_addr(), inet_server_port(), 6 * 7' 2>/dev/null && break; sleep 0.2; done; "
        "id -u; kill %1; wait"
    )
    done = everybodys.run(policy, "bash", "-c", script, options=["--verbose"], cwd="/")
    log = (everybodys.directory / "data.log").read_text()
    assert [f"127.0.0.1|{port}|42", str(65534)] == done.output.splitlines(), (done, log)
    assert {"->", "<-"} == set(SECURED.findall(done.errors))


def test_a_ring_that_the_user_may_not_read_is_no_use(everybodys: Stage) -> None:
    """Key rings are read with the caller's rights, no more; exit code 3 and one sentence."""
    policy = everybodys.policy(inbound(7))
    private = everybodys.rings / "private"
    subprocess.run(["chown", "-R", "root", private], check=True)
    try:
        done = everybodys.run(policy, "true", cwd="/")
    finally:
        subprocess.run(["chown", "-R", "nobody", private], check=True)
    assert (3, "") == (done.code, done.output)
    assert done.errors.startswith("attls: rule in-7: ")


# With its own sandbox it answers nothing on a current kernel, without us either.
VSFTPD = """
listen=YES
listen_ipv6=NO
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
anon_root={directory}
no_anon_password=YES
secure_chroot_dir={empty}
pasv_min_port={data}
pasv_max_port={data}
seccomp_sandbox=NO
"""


def test_vsftpd_and_lftp(stage: Stage) -> None:
    """Passive mode: lftp connects to a data port at which the server accepts only later; both connections are TLS."""
    needs("vsftpd", "lftp")
    port, data = free_port(), free_port()
    policy = stage.policy(inbound(port), outbound(port), inbound(data), outbound(data))
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        place = Path(directory)
        place.chmod(0o755)
        for name in ("root", "empty"):
            (place / name).mkdir()
        (place / "root" / "file").write_text("by ftp\n")
        configuration = place / "conf"
        configuration.write_text(VSFTPD.format(port=port, data=data, directory=place / "root", empty=place / "empty"))
        with stage.start(policy, "vsftpd", configuration):
            wait_for(port)
            commands = "set net:max-retries 2; set net:timeout 10; set ftp:ssl-allow no; cat file; bye"
            done = stage.run(policy, "lftp", "-e", commands, f"ftp://127.0.0.1:{port}", options=["--verbose"], input="")
    assert "by ftp" in done.output, done
    assert 2 <= len(SECURED.findall(done.errors))


OWN_FILTER = """
import ctypes, socket, struct, sys
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))
program = Program(1, ctypes.addressof(code))
assert 0 == ctypes.CDLL(None).prctl(22, 2, ctypes.byref(program))
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"filtered")
print(sock.recv(100).decode())
"""


def test_a_program_with_a_filter_of_its_own(stage: Stage) -> None:
    """A second filter goes on top of ours and both count."""
    with Peer(stage.server_context()) as peer:
        done = stage.run(stage.policy(outbound(peer.port)), sys.executable, "-c", OWN_FILTER, str(peer.port))
    assert (0, "FILTERED\n", "") == (done.code, done.output, done.errors)


def test_exec_within_exec_is_refused_with_a_sentence(stage: Stage) -> None:
    """The kernel allows one supervisor; the inner program does not run."""
    policy = stage.policy(outbound(7))
    done = stage.run(policy, *stage.command(policy, "echo", "ran"))
    assert (3, "") == (done.code, done.output)
    assert "attls: a seccomp supervisor is around this process already" in done.errors


def test_exit_codes_and_signals_are_the_programs(stage: Stage) -> None:
    """Its exit status, the signal it dies of, a signal sent to us, and what cannot be started."""
    policy = stage.policy(outbound(7))
    assert 7 == stage.run(policy, "sh", "-c", "exit 7").code
    assert -9 == stage.run(policy, "sh", "-c", "kill -9 $$").code
    with stage.start(
        policy, "sh", "-c", "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.02; done"
    ) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        process.send_signal(10)
        assert ("caught\n", 5) == (process.stdout.readline(), process.wait(20))
    done = stage.run(policy, "no-such-program")
    assert (3, "attls: there is no program no-such-program; check the name, or give its path\n") == (
        done.code,
        done.errors,
    )
