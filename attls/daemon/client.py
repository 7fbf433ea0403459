"""Asking a running daemon: the operators' half of `admin.sock`, blocking, standard library only, so it starts fast."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from attls.daemon.rundir import RunDirectory
from attls.errors import DaemonError

LARGEST_REPLY = 512 * 1024 * 1024


def ask(directory: RunDirectory, request: dict[str, Any], *, seconds: float = 60.0) -> dict[str, Any]:
    """Send one request to the daemon that lives in `directory` and return its reply.

    Raises DaemonError when there is no daemon, it may not be asked, or it does not answer within `seconds`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(seconds)
        deadline = time.monotonic() + seconds
        try:
            sock.connect(str(directory.admin))
            sock.sendall(json.dumps(request).encode() + b"\n")
            data = bytearray()
            while chunk := sock.recv(1 << 20):
                data += chunk
                if len(data) > LARGEST_REPLY or time.monotonic() > deadline:
                    raise DaemonError(f"the attls daemon in {directory.path} does not finish its answer")
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise DaemonError(
                f"no attls daemon runs in {directory.path}; start one with `attls run`, or name its directory with "
                "--run-dir"
            ) from None
        except PermissionError:
            raise DaemonError(f"only root may ask the attls daemon in {directory.path}; try with sudo") from None
        except TimeoutError:
            raise DaemonError(f"the attls daemon in {directory.path} did not answer within {seconds:.0f} s") from None
        except OSError as error:
            raise DaemonError(f"cannot reach the attls daemon in {directory.path}: {error.strerror or error}") from None
    if not data:
        raise DaemonError(f"the attls daemon in {directory.path} ended before it answered")
    reply = json.loads(data)
    if not isinstance(reply, dict):
        raise DaemonError(f"the attls daemon in {directory.path} answered what is no JSON object")
    return reply


def wait_until_gone(directory: RunDirectory, seconds: float) -> bool:
    """Wait until no daemon holds `directory`, at most `seconds`; tell whether that came true."""
    deadline = time.monotonic() + seconds
    while directory.is_held():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
