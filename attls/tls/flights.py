"""How the flights of a handshake get into an engine and out of it, and how it takes a step.

`Public` does it by pyOpenSSL's methods. `Direct` makes the same calls into the TLS library, without raising an
exception each time that the engine waits for its peer, and with one buffer that stays; on the same terms as `Direct` of
`crossing`, and only with the library's own class: an engine that looks at the peer's messages (`engine`) is always
asked by its own methods. docs/decisions/0009 says what it brings.
"""

from __future__ import annotations

import os
from typing import Any

from OpenSSL import SSL

from attls.tls.crossing import SWITCH, look_inside

_FLIGHT = 16384  # bytes taken from the engine at once


class Public:
    """The public methods; every method raises what the engine raises."""

    name = "public"
    tells_resumption = False
    """Whether the engine can be asked for it; if not, what came and went tells (`hello.resumes`)."""

    def step(self, engine: SSL.Connection) -> bool:
        """Go on with the handshake; True when it is done, False when the engine waits for its peer."""
        try:
            engine.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def take(self, engine: SSL.Connection) -> bytes:
        """Return what the engine wants to be sent."""
        answer = b""
        try:
            answer = engine.bio_read(_FLIGHT)
            while len(answer) % _FLIGHT == 0:
                answer += engine.bio_read(_FLIGHT)
        except SSL.WantReadError:
            pass  # the engine has nothing more to say
        return answer

    def resumed(self, engine: SSL.Connection) -> bool:
        """Say whether the finished handshake has resumed a session; only where `tells_resumption`."""
        raise AssertionError("there is no public way to ask an engine for that")


class Direct(Public):
    """The library's own functions; raises AttributeError or TypeError where they are not to be had."""

    tells_resumption = True

    def __init__(self) -> None:
        ffi, lib, trial = look_inside()
        self._shake, self._error, self._waits = lib.SSL_do_handshake, lib.SSL_get_error, lib.SSL_ERROR_WANT_READ
        self._read_bio, self._reused = lib.BIO_read, lib.SSL_session_reused
        self._buffer = ffi.new("char[]", _FLIGHT)
        self._bytes = ffi.buffer(self._buffer)
        trial.set_connect_state()
        if self.step(trial) or self.take(trial)[:2] != b"\x16\x03":
            raise TypeError("pyOpenSSL's engine is not what it was")

    def step(self, engine: Any) -> bool:
        """Go on with the handshake."""
        if type(engine) is not SSL.Connection:
            return super().step(engine)
        result = self._shake(engine._ssl)
        context = engine._context
        # What a callback has raised is kept until pyOpenSSL looks; where there are callbacks it must look.
        noisy = context._verify_helper or context._ocsp_helper or context._alpn_select_helper
        if result == -1 and not noisy and self._error(engine._ssl, result) == self._waits:
            return False
        try:
            engine._raise_ssl_error(engine._ssl, result)
        except SSL.WantReadError:
            return False
        return True

    def take(self, engine: Any) -> bytes:
        """Return what the engine wants to be sent."""
        if type(engine) is not SSL.Connection:
            return super().take(engine)
        answer = b""
        while (count := self._read_bio(engine._from_ssl, self._buffer, _FLIGHT)) > 0:
            answer += self._bytes[:count]
            if count < _FLIGHT:
                break
        return answer

    def resumed(self, engine: Any) -> bool:
        """Say whether the finished handshake has resumed a session."""
        return bool(self._reused(engine._ssl))


def best() -> Public:
    """Return the quicker one that works with this pyOpenSSL and may be used, as `crossing` does."""
    if os.environ.get(SWITCH) == Public.name:
        return Public()
    try:
        return Direct()
    except (ImportError, AttributeError, TypeError):
        return Public()
