"""What can be read from TLS bytes without keys: record types, and whether a server's first flight resumes a session.

The functions take bytes as they appear on the wire. Only `client_hello` raises on garbage, because what it could not
read must not be taken for harmless; all others leave the judgement to the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HANDSHAKE = 22
CHANGE_CIPHER_SPEC = 20
ALERT = 21

# Extensions (IANA TLS ExtensionType Values).
SERVER_NAME = 0
MAXIMUM_FRAGMENT = 1
EXTENDED_MASTER_SECRET = 23
RENEGOTIATION_INFO = 65281
_VERSIONS = 43

_CLIENT_HELLO = 1
_SERVER_HELLO = 2
_NEW_SESSION_TICKET = 4
_PRE_SHARED_KEY = 41
_FALLBACK_TO_INDICATION = b"\x00\xff"  # the cipher that stands for an empty renegotiation_info (RFC 5746)
_LARGEST_HELLO = 65536
_HELLO_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client offers: the host name it asks for (lower case), its versions, all extensions it sent.

    `extensions` counts the signalling cipher of RFC 5746 as the extension that it stands for.
    """

    server_name: str | None
    versions: tuple[int, ...]
    extensions: frozenset[int]


def client_hello(flight: bytes) -> ClientHello | None:
    """Read the ClientHello at the start of `flight`; None while it is incomplete.

    Raises ValueError when these bytes can never become a ClientHello.
    """
    message = _first_message(flight)
    if message is None:
        return None
    try:
        return _client_hello(message)
    except IndexError:
        raise ValueError("the ClientHello is cut short") from None


def server_extensions(flight: bytes) -> frozenset[int] | None:
    """Return the extensions of the ServerHello at the start of `flight`; None while there is none to be read."""
    try:
        message = _first_message(flight)
        if message is None or message[0] != _SERVER_HELLO:
            return None
        start = 4 + 35 + message[38] + 3
        return frozenset(kind for kind, _ in _extensions(message, start))
    except (ValueError, IndexError):
        return None


def _first_message(flight: bytes) -> bytes | None:
    # The first handshake message with its header, put together from the records that carry it.
    message = b""
    position = 0
    while position + 5 <= len(flight):
        if flight[position] != HANDSHAKE:
            if flight[position] == ALERT and not message and flight[position + 5 : position + 6] == b"\x01":
                position += 7  # a warning in front of the message
                continue
            raise ValueError("a handshake message was expected")
        end = position + 5 + int.from_bytes(flight[position + 3 : position + 5])
        message += flight[position + 5 : end]
        if len(message) >= 4:
            length = 4 + int.from_bytes(message[1:4])
            if length > _LARGEST_HELLO:
                raise ValueError("the first handshake message is too long")
            if len(message) >= length:
                return message[:length]
        position = end
    return None


def _client_hello(message: bytes) -> ClientHello:
    if message[0] != _CLIENT_HELLO:
        raise ValueError("the first message is no ClientHello")
    legacy_version = int.from_bytes(message[4:6])
    position = 4 + 34
    position += 1 + message[position]
    length = int.from_bytes(message[position : position + 2])
    ciphers = message[position + 2 : position + 2 + length]
    position += 2 + length
    position += 1 + message[position]
    extensions = dict(_extensions(message, position))
    seen = set(extensions)
    if any(ciphers[index : index + 2] == _FALLBACK_TO_INDICATION for index in range(0, len(ciphers), 2)):
        seen.add(RENEGOTIATION_INFO)
    name = None
    names = extensions.get(SERVER_NAME, b"")
    if len(names) > 5 and names[2] == 0:  # RFC 6066 section 3 knows one type of name, and one name of a type
        name = names[5 : 5 + int.from_bytes(names[3:5])].decode("ascii").lower().rstrip(".")
    versions = extensions.get(_VERSIONS)
    return ClientHello(
        name,
        tuple(_numbers(versions[1:])) if versions is not None else (legacy_version,),
        frozenset(seen),
    )


def _extensions(message: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    end = position + 2 + int.from_bytes(message[position : position + 2])
    position += 2
    if end > len(message) and position < end and position <= len(message):
        raise ValueError("the extensions are longer than their message")
    while position + 4 <= end:
        length = int.from_bytes(message[position + 2 : position + 4])
        yield int.from_bytes(message[position : position + 2]), message[position + 4 : position + 4 + length]
        position += 4 + length


def _numbers(content: bytes) -> Iterator[int]:
    return (int.from_bytes(content[index : index + 2]) for index in range(0, len(content) - 1, 2))


def looks_like_tls(first: int) -> bool:
    """Say whether `first`, the first byte a peer sends, can open a TLS handshake (RFC 8446 section 5.1).

    A handshake record starts with 22, an alert (a peer that refuses at once) with 21. The two-byte header of an SSLv2
    hello (high bit set) is not accepted: no protocol we speak begins so.
    """
    return first in (HANDSHAKE, ALERT)


def resumes(flight: bytes) -> bool | None:
    """Say whether `flight`, the bytes of a server's first flight, accepts a resumed session; None: ask the next one.

    TLS 1.3 says so with the pre_shared_key extension of the ServerHello (RFC 8446 section 4.2.11); earlier versions by
    going from ServerHello (and perhaps NewSessionTicket, RFC 5077 section 3.3) straight to ChangeCipherSpec.
    """
    position = 0
    while position + 9 <= len(flight):
        record_type = flight[position]
        record_end = position + 5 + int.from_bytes(flight[position + 3 : position + 5])
        if record_type == CHANGE_CIPHER_SPEC and position > 0:
            return True
        if record_type != HANDSHAKE:
            return False
        message = position + 5
        if flight[message] == _SERVER_HELLO and flight[message + 6 : message + 38] == _HELLO_RETRY_RANDOM:
            return None
        while message + 4 <= min(record_end, len(flight)):
            kind = flight[message]
            body = message + 4
            message = body + int.from_bytes(flight[message + 1 : message + 4])
            if kind == _SERVER_HELLO:
                answer = _server_hello_resumes(flight[body:message])
                if answer is not None:
                    return answer
            elif kind != _NEW_SESSION_TICKET:
                return False
        position = record_end
    # A ChangeCipherSpec record is six bytes; one at the very end of the flight was not looked at above.
    return 0 < position < len(flight) and flight[position] == CHANGE_CIPHER_SPEC


def _server_hello_resumes(hello: bytes) -> bool | None:
    """Return True for a PSK, False for a full TLS 1.3 handshake, None when the following records decide."""
    if len(hello) < 38:
        return False
    position = 35 + hello[34] + 3
    extensions_end = position + 2 + int.from_bytes(hello[position : position + 2])
    position += 2
    is_tls13 = False
    while position + 4 <= min(extensions_end, len(hello)):
        extension = int.from_bytes(hello[position : position + 2])
        if extension == _PRE_SHARED_KEY:
            return True
        is_tls13 = is_tls13 or extension == 43
        position += 4 + int.from_bytes(hello[position + 2 : position + 4])
    return False if is_tls13 else None
