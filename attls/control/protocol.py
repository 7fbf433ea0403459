"""Messages of the control channel ↔ bytes: the 56-byte TTLS_IOCTL, the TTLSHeader of version 2, errno and errno-junior.

Pure and of the standard library only, because programs import it through `attls.client`. Numbers are in the byte order
of the machine, text is ASCII. A request is one packet: the structure, and for version 2 the contents of the caller's
buffer. A reply is one packet: errno, errno-junior, the structure with its output fields set, and then what belongs into
the caller's buffer. Names and values are those of IBM's `ezbztlsc.h`; where IBM does not publish a number, ours is in
`attls/c/ezbztlsc.h` as well and a test holds the two against each other.
"""

from __future__ import annotations

import enum
import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

SIOCTTLSCTL = 0xC038D90B
VERSION1, VERSION2 = 1, 2
EMVSERR = 157  # z/OS only: "an MVS environmental or internal error"; no Linux errno has this number

# A caller's buffer beyond this is treated as if it were this long: it bounds what one request can make us hold.
LARGEST_BUFFER = 64 * 1024

_IOCTL = struct.Struct("=HHBBH2sBB9sBBxQII4s4s8x")
IOCTL_SIZE = _IOCTL.size
_RESULT = struct.Struct("=ii")
_HEADER = struct.Struct("=8s8xIII16x")
_QUADRUPLET = struct.Struct("=IIII")
HEADER_IDENTIFIER = b"TTLSHDR "
HEADER_SIZE = _HEADER.size
QUADRUPLET_SIZE = _QUADRUPLET.size
MOST_QUADRUPLETS = 64
LONGEST_USER = 8
LARGEST_REQUEST = IOCTL_SIZE + LARGEST_BUFFER
LARGEST_REPLY = _RESULT.size + IOCTL_SIZE + LARGEST_BUFFER


class Request(enum.IntFlag):
    """What a program asks for; no bit at all is QUERY_ONLY."""

    QUERY_ONLY = 0
    RETURN_CERTIFICATE = 0x0001
    INIT_CONNECTION = 0x0002
    RESET_SESSION = 0x0004
    RESET_CIPHER = 0x0008
    ALLOW_HSTIMEOUT = 0x0010
    STOP_CONNECTION = 0x0020
    RESET_WRITE_CIPHER = 0x0040
    SEND_SESSION_TICKET = 0x0080


# Plain numbers: arithmetic with flags costs microseconds, and every query goes through here.
_CERTIFICATE = Request.RETURN_CERTIFICATE.value
_INIT, _STOP = Request.INIT_CONNECTION.value, Request.STOP_CONNECTION.value
_ALLOW = Request.ALLOW_HSTIMEOUT.value
_REFRESH = (
    Request.RESET_SESSION | Request.RESET_CIPHER | Request.RESET_WRITE_CIPHER | Request.SEND_SESSION_TICKET
).value
CONTROLLING = _INIT | _STOP | _REFRESH
_ALL = CONTROLLING | _CERTIFICATE | _ALLOW


class PolicyStatus(enum.IntEnum):
    """TTLSi_Stat_Policy: what policy says of the connection."""

    OFF = 1
    NO_POLICY = 2
    NOT_ENABLED = 3
    ENABLED = 4
    APPLCNTRL = 5


class ConnectionStatus(enum.IntEnum):
    """TTLSi_Stat_Conn: whether the connection is protected."""

    NOTSECURE = 1
    HS_INPROGRESS = 2
    SECURE = 3


class SecurityType(enum.IntEnum):
    """TTLSi_Sec_Type: the role that policy gives to the local end, and how it looks at client certificates."""

    UNKNOWN = 0
    CLIENT = 1
    SERVER = 2
    SRV_CA_PASS = 3
    SRV_CA_FULL = 4
    SRV_CA_REQD = 5
    SRV_CA_SAFCHK = 6


class Key(enum.IntEnum):
    """What a Get quadruplet of version 2 can ask for."""

    RULE_NAME = 1
    GROUP_ACTION_NAME = 2
    ENVIRONMENT_ACTION_NAME = 3
    CONNECTION_ACTION_NAME = 4
    CERTIFICATE = 5
    HOST_STATUS = 6
    USER = 7  # ours: the user id whole, where it is longer than the eight bytes of TTLSi_UserID


FLAG_FTP_DATA_CONNECTION = 0x01
# Ours: wait for the outcome although the socket is non-blocking. The reply then comes when there is one, so that an
# event loop can wait for the control connection to become readable.
FLAG_WAIT = 0x80


class Junior(enum.IntEnum):
    """Errno-junior: what exactly an errno means; the low half of what z/OS shows as reason code."""

    OK = 0
    UNEXPECTED_ERROR = 0x0025
    BUFFER_TOO_SMALL = 0x006B
    INVALID_PARAMETERS = 0x00A9
    SOCKET_CALL_PARAMETER = 0x025E
    INVALID_VERSION = 0x03ED
    ALREADY_ACTIVE = 0x0497
    GET_CONNECTION = 0x7221
    DENIED_BY_POLICY = 0x7337
    HANDSHAKE_FAILED = 0x733D
    CONTROL_DATA_FAILED = 0x733E
    RESET_SESSION_FAILED = 0x733F
    RESET_CIPHER_FAILED = 0x7340
    CLEARTEXT_RECEIVED = 0x7343
    STOP_READ_DATA_PENDING = 0x736C
    STOP_WRITE_DATA_PENDING = 0x736D
    RESET_WRITE_CIPHER_FAILED = 0x7370
    SEND_SESSION_TICKET_FAILED = 0x7371


class RefusalError(Exception):
    """A request that is answered with `errno` and `junior` instead of being carried out.

    `valid` says whether the output fields of the answer count all the same.
    """

    def __init__(self, number: int, junior: int = Junior.OK, *, valid: bool = False) -> None:
        self.errno = number
        self.junior = junior
        self.valid = valid
        super().__init__(number, junior)


class MalformedError(ValueError):
    """Bytes that are no message of this protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ioctl:
    """TTLS_IOCTL, field by field; `buffer` is the caller's pointer, of which only zero or not zero means anything."""

    version: int = VERSION1
    request: int = 0
    policy_status: int = 0
    connection_status: int = 0
    protocol: int = 0
    cipher: str = ""
    security_type: int = 0
    user: str = ""
    fips140: int = 0
    flags: int = 0
    buffer: int = 0
    buffer_length: int = 0
    certificate_length: int = 0
    cipher4: str = ""
    key_share: str = ""

    def pack(self) -> bytes:
        """Return the 56 bytes; a user id that does not fit is left out, for a shorter one would be somebody else's."""
        return self.pack_into(self, self.certificate_length)

    def pack_into(self, given: Ioctl, certificate_length: int) -> bytes:
        """Return the 56 bytes of these output fields with the input fields of `given`."""
        user = self.user.encode("utf-8", "replace")
        if len(user) > LONGEST_USER:
            user = b""
        return _IOCTL.pack(
            given.version,
            given.request,
            self.policy_status,
            self.connection_status,
            self.protocol,
            _ascii(self.cipher, 2),
            self.security_type,
            len(user),
            user,
            self.fips140,
            given.flags,
            given.buffer,
            given.buffer_length,
            certificate_length,
            _ascii(self.cipher4, 4),
            _ascii(self.key_share, 4),
        )

    @classmethod
    def unpack(cls, data: bytes) -> Ioctl:
        """Read the first 56 bytes of `data`; raises MalformedError when there are fewer."""
        if len(data) < IOCTL_SIZE:
            raise MalformedError(f"a TTLS_IOCTL has {IOCTL_SIZE} bytes, not {len(data)}")
        found = _IOCTL.unpack_from(data)
        return cls(
            version=found[0],
            request=found[1],
            policy_status=found[2],
            connection_status=found[3],
            protocol=found[4],
            cipher=_text(found[5]),
            security_type=found[6],
            user=found[8][: min(found[7], LONGEST_USER)].partition(b"\0")[0].decode("utf-8", "replace"),
            fips140=found[9],
            flags=found[10],
            buffer=found[11],
            buffer_length=found[12],
            certificate_length=found[13],
            cipher4=_text(found[14]),
            key_share=_text(found[15]),
        )


def _ascii(text: str, most: int) -> bytes:
    return text.encode("ascii", "replace")[:most]


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("ascii", "replace")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that follows the rules: what is asked, in which version, and what a version 2 buffer wants to get.

    `bits` are those of `Request`, as a plain number.
    """

    ioctl: Ioctl
    bits: int
    gets: tuple[int, ...] | None = None
    quadruplets: bytes = b""

    @property
    def request(self) -> Request:
        """What is asked for."""
        return Request(self.bits)

    @property
    def capacity(self) -> int:
        """How many bytes the caller's buffer takes."""
        return min(self.ioctl.buffer_length, LARGEST_BUFFER) if self.ioctl.buffer else 0

    @property
    def wants_certificate(self) -> bool:
        """Whether the reply is to hold the partner's certificate."""
        return bool(self.bits & _CERTIFICATE) or (self.gets is not None and Key.CERTIFICATE in self.gets)


def parse_request(packet: bytes) -> Call:
    """Read a request and hold it against every rule that needs no connection.

    Raises RefusalError with the errno that the program gets.
    """
    if len(packet) < IOCTL_SIZE:
        raise RefusalError(errno.EINVAL, Junior.SOCKET_CALL_PARAMETER)
    ioctl = Ioctl.unpack(packet)
    if ioctl.version not in (VERSION1, VERSION2):
        raise RefusalError(errno.EINVAL, Junior.INVALID_VERSION)
    if ioctl.request & ~_ALL:
        raise RefusalError(errno.EINVAL, Junior.SOCKET_CALL_PARAMETER)
    contents = packet[IOCTL_SIZE:]
    call = _version1(ioctl, contents) if ioctl.version == VERSION1 else _version2(ioctl, contents)
    check_combination(ioctl.request)
    return call


def _version1(ioctl: Ioctl, contents: bytes) -> Call:
    wants = bool(ioctl.request & _CERTIFICATE)
    given = bool(ioctl.buffer), bool(ioctl.buffer_length)
    if contents or given != (wants, wants):
        raise RefusalError(errno.EINVAL, Junior.SOCKET_CALL_PARAMETER)
    return Call(ioctl, ioctl.request)


def _version2(ioctl: Ioctl, contents: bytes) -> Call:
    # The buffer is a TTLSHeader here, so a certificate has no place at its start: it is asked for by a Get.
    if ioctl.request & _CERTIFICATE:
        raise RefusalError(errno.EINVAL, Junior.SOCKET_CALL_PARAMETER)
    if not ioctl.buffer or not ioctl.buffer_length:
        if ioctl.buffer or ioctl.buffer_length or contents:
            raise RefusalError(errno.EINVAL, Junior.SOCKET_CALL_PARAMETER)
        return Call(ioctl, ioctl.request)
    try:
        sets, gets = parse_header(contents)
    except MalformedError:
        raise RefusalError(errno.EINVAL, Junior.SOCKET_CALL_PARAMETER) from None
    if sets or len(contents) > ioctl.buffer_length or any(key not in _KEYS for key in gets):
        # No key that sets something is published, so none can be honoured; silence would promise what we do not do.
        raise RefusalError(errno.EINVAL, Junior.SOCKET_CALL_PARAMETER)
    return Call(ioctl, ioctl.request, gets, contents[HEADER_SIZE : HEADER_SIZE + QUADRUPLET_SIZE * len(gets)])


_KEYS = frozenset(Key)


def check_combination(bits: int) -> None:
    """Raise RefusalError (EPERM) for requests that exclude each other."""
    initial, stop, others = bits & _INIT, bits & _STOP, bits & _REFRESH
    if (initial and (stop or others)) or (stop and others) or (bits & _ALLOW and not initial):
        raise RefusalError(errno.EPERM, Junior.INVALID_PARAMETERS)


def parse_header(contents: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Read a TTLSHeader; return the keys of its Set and of its Get quadruplets, or raise MalformedError."""
    if len(contents) < HEADER_SIZE:
        raise MalformedError("the buffer is too short for a TTLSHeader")
    identifier, _, sets, gets = _HEADER.unpack_from(contents)
    if identifier != HEADER_IDENTIFIER:
        raise MalformedError("the buffer holds no TTLSHeader")
    if sets + gets > MOST_QUADRUPLETS or len(contents) < HEADER_SIZE + QUADRUPLET_SIZE * (sets + gets):
        raise MalformedError("the buffer is too short for its quadruplets")
    keys = [_QUADRUPLET.unpack_from(contents, HEADER_SIZE + QUADRUPLET_SIZE * index)[0] for index in range(sets + gets)]
    return tuple(keys[:sets]), tuple(keys[sets:])


def build_header(gets: Sequence[int]) -> bytes:
    """Return the start of a buffer that asks for `gets`."""
    quadruplets = b"".join(_QUADRUPLET.pack(key, 0, 0, 0) for key in gets)
    return _HEADER.pack(HEADER_IDENTIFIER, 0, 0, len(gets)) + quadruplets


def fill_header(call: Call, items: Mapping[int, bytes]) -> tuple[bytes, bool]:
    """Return the buffer contents that answer `call`, and whether everything fitted.

    `items` maps keys to their data; what is missing comes back with offset 0. Where not everything fits, only the
    header and the quadruplets come back, with the number of bytes needed.
    """
    gets = call.gets or ()
    place = HEADER_SIZE + QUADRUPLET_SIZE * len(gets)
    quadruplets, data = [], []
    for key in gets:
        item = items.get(key)
        if item is None:
            quadruplets.append(_QUADRUPLET.pack(key, 0, 0, 0))
            continue
        quadruplets.append(_QUADRUPLET.pack(key, place, len(item), 0))
        padded = item + b"\0" * (-len(item) % 4 or 4)  # a program may read a name as a C string
        data.append(padded)
        place += len(padded)
    if place <= call.capacity:
        return _HEADER.pack(HEADER_IDENTIFIER, 0, 0, len(gets)) + b"".join(quadruplets + data), True
    return _HEADER.pack(HEADER_IDENTIFIER, place, 0, len(gets)) + call.quadruplets, False


def read_header(contents: bytes) -> dict[int, bytes]:
    """Return what a reply's buffer holds, by key; what was not available is left out. Raises MalformedError."""
    _, gets = parse_header(contents)
    items = {}
    for index in range(len(gets)):
        key, offset, length, _ = _QUADRUPLET.unpack_from(contents, HEADER_SIZE + QUADRUPLET_SIZE * index)
        if offset:
            if offset + length > len(contents):
                raise MalformedError("an item lies outside of the buffer")
            items[key] = contents[offset : offset + length]
    return items


def bytes_needed(contents: bytes) -> int:
    """Return what a reply's header says is needed to answer it, 0 where everything fitted."""
    return int(_HEADER.unpack_from(contents)[1]) if len(contents) >= HEADER_SIZE else 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What comes back: errno and junior, the structure, and what belongs into the caller's buffer."""

    errno: int
    junior: int
    ioctl: Ioctl
    contents: bytes = b""

    def pack(self) -> bytes:
        """Return the packet."""
        return _RESULT.pack(self.errno, self.junior) + self.ioctl.pack() + self.contents


def parse_reply(packet: bytes) -> Reply:
    """Read a reply, or raise MalformedError."""
    if len(packet) < _RESULT.size + IOCTL_SIZE:
        raise MalformedError(f"a reply of {len(packet)} bytes")
    number, junior = _RESULT.unpack_from(packet)
    return Reply(number, junior, Ioctl.unpack(packet[_RESULT.size :]), packet[_RESULT.size + IOCTL_SIZE :])


def refuse(packet: bytes, refusal: RefusalError) -> bytes:
    """Return the reply to a request that was turned down; its structure comes back as it was, if there is one."""
    given = packet[:IOCTL_SIZE].ljust(IOCTL_SIZE, b"\0")
    return _RESULT.pack(refusal.errno, refusal.junior) + given


def answer(
    call: Call,
    outputs: Ioctl,
    *,
    number: int = 0,
    junior: int = Junior.OK,
    certificate: bytes | None = None,
    items: Mapping[int, bytes] | None = None,
) -> bytes:
    """Return the reply that puts `outputs`, and what the caller's buffer is for, into `call`.

    A buffer that is too small makes it ENOBUFS, unless there is an errno already.
    """
    contents = b""
    length = len(certificate) if certificate is not None and call.wants_certificate else 0
    fits = True
    if call.gets is not None:
        contents, fits = fill_header(call, items or {})
    elif length and certificate is not None:
        fits = length <= call.capacity
        contents = certificate if fits else b""
    if not fits and not number:
        number, junior = errno.ENOBUFS, Junior.BUFFER_TOO_SMALL
    return _RESULT.pack(number, junior) + outputs.pack_into(call.ioctl, length) + contents


def in_progress(outputs: Ioctl) -> Ioctl:
    """Return `outputs` saying that the handshake is in progress, for a request that has just been accepted."""
    return replace(outputs, connection_status=ConnectionStatus.HS_INPROGRESS)


REASONS: dict[tuple[int, int], str] = {
    (errno.EACCES, Junior.DENIED_BY_POLICY): "the policy of this connection does not say ApplicationControlled On",
    (errno.EALREADY, Junior.ALREADY_ACTIVE): "TLS is already started, or already stopped, on this connection",
    (errno.ECONNRESET, Junior.HANDSHAKE_FAILED): "the TLS handshake failed and the connection was reset",
    (errno.ECONNRESET, Junior.CONTROL_DATA_FAILED): "the peer did not end TLS in order and the connection was reset",
    (errno.EINPROGRESS, Junior.OK): "it has been started; wait until the socket is writable and query",
    (errno.EINVAL, Junior.INVALID_VERSION): "TTLSi_Ver is neither 1 nor 2",
    (errno.EINVAL, Junior.SOCKET_CALL_PARAMETER): "the request bits or the buffer do not fit the request",
    (EMVSERR, Junior.UNEXPECTED_ERROR): "an error inside attls; its log says more",
    (errno.ENOBUFS, Junior.BUFFER_TOO_SMALL): "the buffer is too small for the answer",
    (errno.ENOTCONN, Junior.GET_CONNECTION): "the socket is not connected",
    (errno.EOPNOTSUPP, Junior.OK): "AT-TLS is not enabled for this connection",
    (errno.EOPNOTSUPP, Junior.RESET_CIPHER_FAILED): "the TLS library cannot update the keys of a TLS 1.3 connection",
    (errno.EOPNOTSUPP, Junior.RESET_WRITE_CIPHER_FAILED): "the TLS library cannot update the sending key",
    (errno.EOPNOTSUPP, Junior.SEND_SESSION_TICKET_FAILED): "the TLS library cannot send a session ticket on request",
    (errno.EPERM, Junior.INVALID_PARAMETERS): "the requests exclude each other",
    (errno.EPIPE, Junior.OK): "one side has already ended the connection",
    (errno.EPROTO, Junior.OK): "the request does not fit what this connection has done so far, or its role or protocol",
    (errno.EPROTO, Junior.STOP_READ_DATA_PENDING): "there is decrypted data that the program has not read yet",
    (errno.EPROTO, Junior.STOP_WRITE_DATA_PENDING): "there is data that the network has not taken yet",
    (errno.EPROTOTYPE, Junior.OK): "the descriptor is no TCP socket",
    (errno.EWOULDBLOCK, Junior.OK): "the handshake is in progress; wait until the socket is writable and query again",
}


def reason(number: int, junior: int) -> str:
    """Return in words what an errno and its junior mean here."""
    text = REASONS.get((number, junior)) or REASONS.get((number, Junior.OK))
    return text or f"{errno.errorcode.get(number, 'errno')} ({number}, junior {junior:#06x})"
