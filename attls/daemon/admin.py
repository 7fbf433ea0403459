"""The operators' socket: one JSON request, one JSON reply, per connection; for root and the daemon's own user.

`admin.sock` has mode 0600 and the peer's user is checked as well. Requests are small, replies may list thousands of
connections; both ends have deadlines. The other end is `client`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from attls.daemon.rundir import RunDirectory
from attls.errors import DaemonError

LARGEST_REQUEST = 64 * 1024
REQUEST_SECONDS = 10.0
REPLY_SECONDS = 30.0
_CREDENTIALS = struct.Struct("3i")

_log = logging.getLogger("attls.admin")

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def listen(directory: RunDirectory) -> socket.socket:
    """Return the listening socket; the directory must be held by this process."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(directory.admin))  # the umask of the daemon makes it 0600 from the first moment
        directory.admin.chmod(0o600)
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise DaemonError(f"cannot listen on {directory.admin}: {error.strerror}") from error
    return listener


async def serve(listener: socket.socket, answer: Answer) -> None:
    """Answer requests until cancelled; a request that fails costs nobody else anything."""
    async with trio.open_nursery() as nursery:
        limit = trio.CapacityLimiter(16)
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                accepted, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                _log.warning("cannot take an operator's request: %s", error.strerror)
                await trio.sleep(0.1)
                continue
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
            nursery.start_soon(_serve_one, stream, answer, limit)


async def _serve_one(stream: trio.SocketStream, answer: Answer, limit: trio.CapacityLimiter) -> None:
    async with stream, limit:
        try:
            _, uid, _ = _CREDENTIALS.unpack(
                stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if uid not in (0, os.geteuid()):
                reply: dict[str, Any] = {"ok": False, "error": "only root may ask this daemon"}
            else:
                with trio.fail_after(REQUEST_SECONDS):
                    request = await _read_request(stream)
                reply = await answer(request)
            with trio.fail_after(REPLY_SECONDS):
                await stream.send_all(json.dumps(reply).encode() + b"\n")
        except (trio.TooSlowError, trio.BrokenResourceError):
            return
        except ValueError as error:
            with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(json.dumps({"ok": False, "error": f"bad request: {error}"}).encode() + b"\n")
        except Exception:  # noqa: BLE001 - a bug of ours ends this request, never the daemon
            _log.exception("internal error while answering an operator")


async def _read_request(stream: trio.SocketStream) -> dict[str, Any]:
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = await stream.receive_some(4096)
        if not chunk:
            break
        data += chunk
        if len(data) > LARGEST_REQUEST:
            raise ValueError("the request is too long")
    request = json.loads(data)
    if not isinstance(request, dict):
        raise ValueError("the request is no JSON object")
    return request
