"""Engines that look at the peer's first message and the outcome, where policy asks for more than OpenSSL checks.

`HearingEngine` is a server's: it keeps what the client sends until the ClientHello is complete, and only then settles
on the context, by the name and the groups that the client offers. `CheckingEngine` is a client's: it looks at the
ServerHello on the way. Both refuse before a byte of the program's data is written, with an alert where one can still be
sent in the clear; what OpenSSL had already prepared to answer is dropped. Connections without such demands use the
library's own class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from attls import errors
from attls.errors import Reason
from attls.tls.hello import ClientHello, client_hello

HANDSHAKE_FAILURE = 40
DECODE_ERROR = 50
MISSING_EXTENSION = 109
UNRECOGNIZED_NAME = 112


class Refusal(Exception):  # noqa: N818 - it says what is done, not that something is broken
    """The peer is refused: for `reason`, telling it the TLS alert of that number."""

    def __init__(self, reason: Reason, alert: int = HANDSHAKE_FAILURE, detail: str = "") -> None:
        super().__init__(reason.text)
        self.reason = reason
        self.alert = alert
        self.detail = detail


class RefusingEngine(SSL.Connection):
    """An engine that can end its handshake with an alert of our own; `refusal` then says why."""

    refusal: Refusal | None = None

    _farewell: bytes | None = None

    def bio_read(self, bufsiz: int) -> bytes:
        """Return what is to be sent: the engine's bytes, or after a refusal the alert alone."""
        if self._farewell is None:
            return super().bio_read(bufsiz)
        farewell, self._farewell = self._farewell, b""
        if not farewell:
            raise SSL.WantReadError
        return farewell

    def _refuse(self, refusal: Refusal, *, in_clear: bool) -> None:
        # Past the first flight an alert would have to be encrypted, which only the library could do: then none is sent.
        self._farewell = bytes((21, 3, 3, 0, 2, 2, refusal.alert)) if in_clear else b""
        self.refusal = refusal
        raise SSL.Error([("attls", "", refusal.reason.word)])


class HearingEngine(RefusingEngine):
    """A server's engine that reads the ClientHello before OpenSSL does.

    `settle` turns the ClientHello into a context; `judge` looks at what came out so far, and is told whether the
    handshake is done. Both may refuse. `first` is the context for the time before, which never sees a byte.
    """

    def __init__(
        self,
        first: SSL.Context,
        settle: Callable[[ClientHello], SSL.Context],
        judge: Callable[[SSL.Connection, ClientHello, bool], None],
    ) -> None:
        super().__init__(first, None)
        self._settle = settle
        self._judge = judge
        self._waiting = b""
        self._hello: ClientHello | None = None
        self._answered = False

    def bio_write(self, buf: Any) -> int:
        """Take bytes of the peer."""
        if self._hello is not None:
            return super().bio_write(buf)
        self._waiting += bytes(buf)
        try:
            hello = client_hello(self._waiting)
            if hello is not None:
                # The public way to another context with other groups is another engine, so this one begins anew.
                noted = self.get_app_data()
                SSL.Connection.__init__(self, self._settle(hello), None)
                self.set_accept_state()
                self.set_app_data(noted)
                self._hello = hello
                super().bio_write(self._waiting)
                self._waiting = b""
        except ValueError as error:
            self.refusal = Refusal(errors.BAD_HELLO, DECODE_ERROR, str(error))
        except Refusal as refusal:
            self.refusal = refusal
        return len(buf)

    def do_handshake(self) -> None:
        """Go on with the handshake; raises like the library, and its Error when the client is refused."""
        if self.refusal is not None:
            self._refuse(self.refusal, in_clear=True)
        if self._hello is None:
            raise SSL.WantReadError
        try:
            super().do_handshake()
        except SSL.WantReadError:
            self._look(self._hello, done=False)
            raise
        self._look(self._hello, done=True)

    def _look(self, hello: ClientHello, *, done: bool) -> None:
        first, self._answered = not self._answered, True
        try:
            self._judge(self, hello, done)
        except Refusal as refusal:
            self._refuse(refusal, in_clear=first)


class CheckingEngine(RefusingEngine):
    """A client's engine: `judge` gets the server's bytes so far, and whether the handshake is done, and may refuse.

    `warned` says that the server does not know the name it was asked for but goes on.
    """

    warned = False

    def __init__(self, context: SSL.Context, judge: Callable[[SSL.Connection, bytes, bool], None]) -> None:
        super().__init__(context, None)
        self._judge = judge
        self._heard: bytes | None = b""

    def bio_write(self, buf: Any) -> int:
        """Take bytes of the peer."""
        if self._heard is not None:
            self._heard += bytes(buf)
        return super().bio_write(buf)

    def do_handshake(self) -> None:
        """Go on with the handshake; raises like the library, and its Error when the server is refused."""
        if self._heard is None:
            super().do_handshake()
            return
        try:
            super().do_handshake()
        except SSL.WantReadError:
            self._look(self._heard, done=False)
            raise
        heard, self._heard = self._heard, None
        self._look(heard, done=True)

    def _look(self, heard: bytes, *, done: bool) -> None:
        if not heard:
            return
        try:
            self._judge(self, heard, done)
        except Refusal as refusal:
            self._refuse(refusal, in_clear=not done)
