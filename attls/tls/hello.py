"""What can be read from TLS bytes without keys: record types, and whether a server's first flight resumes a session.

The functions take bytes as they appear on the wire and never raise on garbage; the engine judges what is invalid.
"""

from __future__ import annotations

HANDSHAKE = 22
APPLICATION_DATA = 23
CHANGE_CIPHER_SPEC = 20
ALERT = 21

_SERVER_HELLO = 2
_NEW_SESSION_TICKET = 4
_PRE_SHARED_KEY = 41
_HELLO_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


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
