"""How bytes cross into an engine and out of it, once it has finished its handshake: into buffers that stay.

pyOpenSSL's own methods allocate a buffer for every call and copy out of it; for a relay that is a quarter of all it
does. `Direct` makes the same calls into the TLS library (SSL_read, SSL_write, BIO_read, BIO_write) on the same objects,
straight into the relay's buffers. It has to look under pyOpenSSL's private names for that, so it is used only where a
trial at start-up succeeds; otherwise, and after any change of those names, `Public` does the same by public methods.
docs/decisions/0005 says what it brings.
"""

from __future__ import annotations

from typing import Any, Protocol

from OpenSSL import SSL

RECORD = 16384  # plain bytes in the largest TLS record (RFC 8446 section 5.1)
OVERHEAD = 256  # more than header, padding and tag add to one record


class Crossing(Protocol):
    """Moves bytes between an engine and the two buffers of a process; every method raises what the engine raises.

    `received` is what sockets are read into, `made` what the engine has made of it: plain bytes or records.
    """

    received: memoryview
    made: memoryview

    def feed(self, engine: SSL.Connection, start: int, end: int) -> None:
        """Give the engine the received bytes from `start` to `end`, which are TLS records or parts of them."""

    def open(self, engine: SSL.Connection, position: int) -> int:
        """Put the plain bytes of one record at `position`; returns how many there were."""

    def seal(self, engine: SSL.Connection, count: int) -> int:
        """Put the records of the first `count` received bytes, and what else is due, at the start; returns the end."""

    def settle(self, engine: SSL.Connection) -> None:
        """Let go of what the handshake needed and nobody needs any more, if that can be done."""


class Public:
    """The crossing by pyOpenSSL's public methods."""

    def __init__(self, size: int) -> None:
        """Make buffers for reads of `size` bytes, a multiple of 64 KiB."""
        self.received = memoryview(bytearray(size))
        # Twice: a peer that asks for short records (RFC 6066) makes many more bytes of them.
        self.made = memoryview(bytearray(2 * size + RECORD))

    def feed(self, engine: SSL.Connection, start: int, end: int) -> None:
        """Give the engine received bytes."""
        engine.bio_write(self.received[start:end])

    def open(self, engine: SSL.Connection, position: int) -> int:
        """Put the plain bytes of one record at `position`."""
        return engine.recv_into(self.made[position:], RECORD)

    def seal(self, engine: SSL.Connection, count: int) -> int:
        """Put the records of the first `count` received bytes at the start."""
        end = 0
        # Few calls count for more here than a buffer inside the engine that grows to 64 KiB.
        for start in range(0, count, 4 * RECORD):
            engine.send(self.received[start : min(start + 4 * RECORD, count)])
            try:
                while True:
                    records = engine.bio_read(4 * RECORD + 4 * OVERHEAD)
                    self.made[end : end + len(records)] = records
                    end += len(records)
                    if len(records) < 4 * RECORD + 4 * OVERHEAD:
                        break
            except SSL.WantReadError:
                pass
        return end

    def settle(self, engine: SSL.Connection) -> None:
        """Do nothing: there is no public way."""


class Direct(Public):
    """The crossing by the library's own functions; raises AttributeError or TypeError where it cannot be."""

    def __init__(self, size: int) -> None:
        """Make the buffers, and try whether what is needed is there and works."""
        from OpenSSL._util import ffi, lib

        super().__init__(size)
        self._received = ffi.from_buffer(self.received)
        self._made = ffi.from_buffer(self.made)
        self._room = len(self.made)
        self._read, self._write = lib.SSL_read, lib.SSL_write
        self._read_bio, self._write_bio = lib.BIO_read, lib.BIO_write
        self._new_bio, self._kind, self._set_bio = lib.BIO_new, lib.BIO_s_mem(), lib.SSL_set_bio
        self._held, self._nowhere = lib.BIO_get_mem_data, ffi.new("char **")
        trial: Any = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
        names = [ffi.typeof(one).cname for one in (trial._ssl, trial._into_ssl, trial._from_ssl)]
        if names != ["SSL *", "BIO *", "BIO *"] or not callable(trial._raise_ssl_error):
            raise TypeError(f"pyOpenSSL's engine is made of {names}")
        self.received[:2] = b"ok"
        if self._write_bio(trial._from_ssl, self._received, 2) != 2 or trial.bio_read(2) != b"ok":
            raise TypeError("pyOpenSSL's engine is not what it was")

    def feed(self, engine: Any, start: int, end: int) -> None:
        """Give the engine received bytes."""
        self._write_bio(engine._into_ssl, self._received + start, end - start)

    def open(self, engine: Any, position: int) -> int:
        """Put the plain bytes of one record at `position`; IndexError where there is no room for them."""
        if position > self._room - RECORD:
            raise IndexError("no room for another record")  # a pointer knows no end; see the sizes of the buffers
        count: int = self._read(engine._ssl, self._made + position, RECORD)
        if count <= 0:
            engine._raise_ssl_error(engine._ssl, count)
        return count

    def seal(self, engine: Any, count: int) -> int:
        """Put the records of the first `count` received bytes at the start."""
        end = 0
        for start in range(0, count, RECORD):
            done = self._write(engine._ssl, self._received + start, min(RECORD, count - start))
            if done <= 0:
                engine._raise_ssl_error(engine._ssl, done)
            end += max(0, self._read_bio(engine._from_ssl, self._made + end, self._room - end))
        return end

    def settle(self, engine: Any) -> None:
        """Replace both memory BIOs, which the handshake has made grow for good, unless they hold something."""
        if self._held(engine._into_ssl, self._nowhere) or self._held(engine._from_ssl, self._nowhere):
            return
        engine._into_ssl, engine._from_ssl = self._new_bio(self._kind), self._new_bio(self._kind)
        self._set_bio(engine._ssl, engine._into_ssl, engine._from_ssl)  # frees the old ones


def best(size: int) -> Crossing:
    """Return the quickest crossing that works with this pyOpenSSL, with buffers for reads of `size` bytes."""
    try:
        return Direct(size)
    except (ImportError, AttributeError, TypeError):
        return Public(size)
