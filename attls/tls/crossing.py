"""How bytes cross from a socket through an engine to the other socket, once the engine has finished its handshake.

One turn is: read a socket, pass the bytes through the engine, write the other socket. There are three ways to make it,
and a process takes the quickest that works:

- `Public` uses pyOpenSSL's public methods, which allocate a buffer for every call and copy out of it.
- `Direct` makes the same calls into the TLS library (SSL_read, SSL_write, BIO_read, BIO_write) on the same objects,
  straight into buffers that stay. It has to look under pyOpenSSL's private names for that, so it is used only where a
  trial at start-up succeeds.
- `Compiled` makes a whole turn in one call of `_crossing.c`, where that was compiled when attls was installed.

docs/decisions/0005 and 0008 say what they bring. The environment variable ATTLS_CROSSING names the quickest that may be
used: compiled, direct or public.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

from OpenSSL import SSL

RECORD = 16384  # plain bytes in the largest TLS record (RFC 8446 section 5.1)
OVERHEAD = 256  # more than header, padding and tag add to one record
PIECE = 32 * 1024  # what an engine is given at once: its buffer grows to that and never shrinks
SWITCH = "ATTLS_CROSSING"

# What a turn has done: bytes received (0 at the end of the stream), bytes made of them, bytes of these that the other
# socket has taken; in the place of the first or the third may be an error, as a negative number (-EAGAIN where nothing
# was to be received; a socket that takes nothing has taken 0). Then what the engine has raised, if anything:
# WantReadError says that it may have something to say by itself.
Turn = tuple[int, int, int, SSL.Error | None]
RawTurn = tuple[int, int, int, Any]  # the same, where `explain` has yet to tell what the engine has raised


def look_inside() -> tuple[Any, Any, Any]:
    """Return cffi, the TLS library that pyOpenSSL calls by it, and an engine to try on.

    Raises ImportError, AttributeError or TypeError where pyOpenSSL is not made as it is known here.
    """
    from OpenSSL._util import ffi, lib

    trial: Any = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    names = [ffi.typeof(one).cname for one in (trial._ssl, trial._into_ssl, trial._from_ssl)]
    if names != ["SSL *", "BIO *", "BIO *"] or not callable(trial._raise_ssl_error):
        raise TypeError(f"pyOpenSSL's engine is made of {names}")
    return ffi, lib, trial


class Public:
    """The crossing by pyOpenSSL's public methods, with the two buffers that every crossing has.

    `received` is what sockets are read into, `made` what an engine has made of it: plain bytes or records. What a turn
    has made and not sent is there until the next one. Sockets are non-blocking.
    """

    name = "public"

    def __init__(self, size: int) -> None:
        """Make buffers for reads of `size` bytes, a multiple of 64 KiB."""
        self.received = memoryview(bytearray(size))
        # Twice: a peer that asks for short records (RFC 6066) makes many more bytes of them.
        self.made = memoryview(bytearray(2 * size + RECORD))

    # A whole turn

    def keys(self, net: socket.socket, app: socket.socket, engine: Any) -> tuple[Any, Any, Any]:
        """Return what a turn wants of the engine, of `net` and of `app`, to be asked for once for each connection.

        Valid until one of the three is closed or let go of, or `settle` is called.
        """
        return engine, net, app

    def turn_inward(self, engine: Any, net: Any, app: Any) -> RawTurn:
        """Read records from the network, open them, and write the plain bytes to the program."""
        received = self.receive(net)
        if received <= 0:
            return received, 0, 0, None
        return received, *self.rest(app, engine, received)

    def turn_outward(self, engine: Any, app: Any, net: Any, flags: int, most: int) -> RawTurn:
        """Read plain bytes from the program, `most` of them, seal them, and write the records out with `flags`."""
        received = self.receive(app, 0, most)
        if received <= 0:
            return received, 0, 0, None
        try:
            made = self.seal(engine, received)
        except SSL.Error as error:
            return received, 0, 0, error
        return received, made, self.hand_on(net, made, flags), None

    def explain(self, ending: Any, engine: Any) -> SSL.Error | None:
        """Return what the engine has raised, from the last part of a turn."""
        return ending  # type: ignore[no-any-return]

    # Parts of a turn

    def receive(self, sock: socket.socket, start: int = 0, end: int = 1 << 30) -> int:
        """Read `sock` into the received bytes from `start` to `end`; returns what a turn says of that."""
        try:
            return sock.recv_into(self.received[start:end])
        except BlockingIOError:
            return -errno.EAGAIN
        except OSError as error:
            return -(error.errno or errno.EIO)

    def rest(self, app: socket.socket, engine: Any, count: int = 0) -> tuple[int, int, SSL.Error | None]:
        """Open what the engine holds and then `count` received bytes, and write the plain bytes to `app`."""
        made, ending = self.open_received(engine, count)
        return made, self.hand_on(app, made), ending

    def open_received(self, engine: Any, count: int = 0) -> tuple[int, SSL.Error | None]:
        """Open what the engine holds and then `count` received bytes; returns how many plain bytes were made."""
        made, ending = 0, None
        for start in range(0, count, PIECE) if count else (0,):
            if count:
                self.feed(engine, start, min(start + PIECE, count))
            made, found = self.open_all(engine, made, asking=not count)
            ending = found or ending
            if ending is not None and not isinstance(ending, SSL.WantReadError):
                break
        return made, ending

    def hand_on(self, sock: socket.socket, count: int, flags: int = 0) -> int:
        """Write the first `count` bytes that were made to `sock`; returns what a turn says of that."""
        try:
            return sock.send(self.made[:count], flags) if count else 0
        except BlockingIOError:
            return 0
        except OSError as error:
            return -(error.errno or errno.EIO)

    def feed(self, engine: Any, start: int, end: int) -> None:
        """Give the engine the received bytes from `start` to `end`, which are TLS records or parts of them."""
        engine.bio_write(self.received[start:end])

    def open(self, engine: Any, position: int) -> int:
        """Put the plain bytes of one record at `position`; returns how many; raises what the engine raises."""
        return int(engine.recv_into(self.made[position:], RECORD))

    def open_all(self, engine: Any, position: int, *, asking: bool = False) -> tuple[int, SSL.Error | None]:
        """Put the plain bytes of all records that are whole at `position`; returns the end and what a turn says."""
        start = position
        try:
            while True:
                position += self.open(engine, position)
        except SSL.WantReadError as error:
            return position, None if position > start else error
        except SSL.Error as error:
            return position, error

    def seal(self, engine: Any, count: int) -> int:
        """Put the records of the first `count` received bytes, and what else is due, at the start; returns the end."""
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

    def settle(self, engine: Any) -> None:
        """Let go of what the handshake needed and nobody needs any more; there is no public way."""


class Direct(Public):
    """The crossing by the library's own functions; raises AttributeError or TypeError where it cannot be."""

    name = "direct"

    def __init__(self, size: int) -> None:
        """Make the buffers, and try whether what is needed is there and works."""
        ffi, lib, trial = look_inside()
        super().__init__(size)
        self._received = ffi.from_buffer(self.received)
        self._made = ffi.from_buffer(self.made)
        self._room = len(self.made)
        self._read, self._write = lib.SSL_read, lib.SSL_write
        self._read_bio, self._write_bio = lib.BIO_read, lib.BIO_write
        self._new_bio, self._kind, self._set_bio = lib.BIO_new, lib.BIO_s_mem(), lib.SSL_set_bio
        self._held, self._nowhere = lib.BIO_get_mem_data, ffi.new("char **")
        self.received[:2] = b"ok"
        if self._write_bio(trial._from_ssl, self._received, 2) != 2 or trial.bio_read(2) != b"ok":
            raise TypeError("pyOpenSSL's engine is not what it was")

    def feed(self, engine: Any, start: int, end: int) -> None:
        """Give the engine received bytes; MemoryError where it has no room for them."""
        if self._write_bio(engine._into_ssl, self._received + start, end - start) != end - start:
            raise MemoryError("a buffer of the TLS library cannot grow")

    def open(self, engine: Any, position: int) -> int:
        """Put the plain bytes of one record at `position`; IndexError where there is no room for them."""
        if position > self._room - RECORD:
            raise IndexError("no room for another record")  # a pointer knows no end; see the sizes of the buffers
        count: int = self._read(engine._ssl, self._made + position, RECORD)
        if count <= 0:
            engine._raise_ssl_error(engine._ssl, count)
        return count

    def open_all(self, engine: Any, position: int, *, asking: bool = False) -> tuple[int, SSL.Error | None]:
        """Put the plain bytes of all whole records at `position`; `asking` even where the engine has been given none.

        It takes no more than one record at a time of what it was given: when nothing is left there, asking is in vain.
        """
        try:
            while asking or self._held(engine._into_ssl, self._nowhere):
                position += self.open(engine, position)
        except SSL.WantReadError as error:
            return position, error if self._held(engine._from_ssl, self._nowhere) else None
        except SSL.Error as error:
            return position, error
        return position, None

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


class Compiled(Direct):
    """The crossing by `_crossing.c`; raises what `Direct` raises, or ImportError where that is not there."""

    name = "compiled"

    def __init__(self, size: int, *, sockets: tuple[int, int] = (0, 0)) -> None:
        """Make the buffers; `sockets` are addresses of functions to use instead of `recv` and `send`."""
        from attls.tls import _crossing

        super().__init__(size)
        ffi, lib, _ = look_inside()
        names = ("SSL_read", "SSL_write", "SSL_get_error", "BIO_read", "BIO_write", "BIO_get_mem_data")
        types = ("int(*)(SSL *, void *, int)", "int(*)(SSL *, void *, int)", "int(*)(SSL *, int)",
                 "int(*)(BIO *, void *, int)", "int(*)(BIO *, void *, int)", "long(*)(BIO *, char * *)")  # fmt: skip
        library = lib.SSL_read.__self__  # `lib` shows the functions of the object that holds them
        functions = [ffi.addressof(library, name) for name in names]
        found = tuple(ffi.typeof(function).cname for function in functions)
        if found != types:
            raise TypeError(f"the TLS library's functions are {found}")
        self._address = lambda pointer: int(ffi.cast("uintptr_t", pointer))
        self._functions = (*map(self._address, functions), *sockets)
        turns = _crossing.Crossing(self.received, self.made, PIECE, self._functions)
        # As attributes of their own, for the quickest call there is.
        self.turn_inward, self.turn_outward = turns.inward, turns.outward  # type: ignore[assignment,method-assign]

    def keys(self, net: socket.socket, app: socket.socket, engine: Any) -> tuple[Any, Any, Any]:
        """Return addresses of the engine's parts, and two descriptors."""
        parts = (engine._ssl, engine._into_ssl, engine._from_ssl)
        return struct.pack("@3P", *map(self._address, parts)), net.fileno(), app.fileno()

    def explain(self, ending: Any, engine: Any) -> SSL.Error | None:
        """Return what pyOpenSSL raises for the library's answer."""
        if ending is None:
            return None
        if ending > 0:
            return SSL.WantReadError()
        try:
            engine._raise_ssl_error(engine._ssl, ending)
        except SSL.Error as error:
            return error
        raise AssertionError("the TLS library failed and does not know why")


KINDS: tuple[type[Public], ...] = (Compiled, Direct, Public)


def best(size: int) -> Public:
    """Return the quickest crossing that works here and may be used, with buffers for reads of `size` bytes."""
    names = [kind.name for kind in KINDS]
    wanted = os.environ.get(SWITCH, "")
    for kind in KINDS[names.index(wanted) if wanted in names else 0 :]:
        try:
            return kind(size)
        except (ImportError, AttributeError, TypeError):
            continue
    raise AssertionError("pyOpenSSL's public methods always work")
