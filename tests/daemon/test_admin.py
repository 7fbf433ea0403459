"""The operators' socket, both halves."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from attls.daemon import admin, client
from attls.daemon.rundir import RunDirectory
from attls.errors import DaemonError


@pytest.fixture(name="directory")
async def directory_fixture(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[RunDirectory]:
    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request.get("command") == "bug":
            raise ZeroDivisionError
        if request.get("command") == "unknown":
            raise ValueError("unknown command 'unknown'")
        return {"ok": True, "echo": request, "much": "x" * request.get("much", 0)}

    directory = RunDirectory(tmp_path)
    listener = admin.listen(directory)
    nursery.start_soon(admin.serve, listener, answer)
    yield directory
    listener.close()


async def ask(directory: RunDirectory, **request: Any) -> dict[str, Any]:
    return await trio.to_thread.run_sync(lambda: client.ask(directory, request, seconds=5))


async def test_a_request_gets_its_reply(directory: RunDirectory) -> None:
    """What the daemon answers arrives whole, however large."""
    reply = await ask(directory, command="status", much=3_000_000)
    assert {"command": "status", "much": 3_000_000} == reply["echo"]
    assert 3_000_000 == len(reply["much"])


async def test_only_the_daemons_user_may_connect(directory: RunDirectory) -> None:
    """The socket has mode 0600."""
    assert 0o600 == directory.admin.stat().st_mode & 0o777


@pytest.mark.parametrize("data", [b"no json\n", b"[1]\n", b"", b"\xff\n", b"x" * 70_000])
async def test_a_bad_request_costs_nobody_else_anything(directory: RunDirectory, data: bytes) -> None:
    """Garbage is answered with an error, or not at all, and the next request is served."""
    stream = await trio.open_unix_socket(str(directory.admin))
    async with stream:
        await stream.send_all(data)
        await stream.send_eof()
        reply = bytearray()
        try:
            async for chunk in stream:
                reply += chunk
        except trio.BrokenResourceError:
            pass
        assert not reply or b'"ok": false' in reply
    assert (await ask(directory, command="status"))["ok"]


async def test_a_bug_ends_one_request(directory: RunDirectory) -> None:
    """An internal error closes that connection; the client says so and the next request is served."""
    with pytest.raises(DaemonError, match="ended before it answered"):
        await ask(directory, command="bug")
    assert "unknown command" in (await ask(directory, command="unknown"))["error"]
    assert (await ask(directory, command="status"))["ok"]


async def test_silent_operators_do_not_block_others(directory: RunDirectory) -> None:
    """Connections that never send a request leave the socket usable."""
    silent = [socket.socket(socket.AF_UNIX) for _ in range(10)]
    for each in silent:
        each.connect(str(directory.admin))
    assert (await ask(directory, command="status"))["ok"]
    for each in silent:
        each.close()


def test_no_daemon_is_one_sentence(tmp_path: Path) -> None:
    """Neither a missing directory nor a socket left behind by a dead daemon gives a traceback."""
    with pytest.raises(DaemonError, match=r"no attls daemon runs in .*nowhere; start one"):
        client.ask(RunDirectory(tmp_path / "nowhere"), {})
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "admin.sock"))
    with pytest.raises(DaemonError, match="no attls daemon runs in"):
        client.ask(RunDirectory(tmp_path), {})


def test_a_daemon_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """The client's deadline is its own."""
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "admin.sock"))
        deaf.listen()
        with pytest.raises(DaemonError, match="did not answer within"):
            client.ask(RunDirectory(tmp_path), {}, seconds=0.1)
