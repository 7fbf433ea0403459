"""A TLS environment: one OpenSSL context built from a rule's settings and a key ring, shared by its connections.

Environments are what System SSL calls `gsk_environment_open`: keys are loaded, ciphers and protocols chosen and the
session cache kept here, once, so that a connection costs only its handshake. No I/O happens in this room; engines work
over memory buffers that the relay fills and empties.

Verification runs inside the handshake, in OpenSSL's callback, so that a peer we refuse is told by an alert and never
sees a byte of the program's data. What it finds, and why it refused, is noted in the engine's `Peer`, since OpenSSL
itself keeps only "certificate verify failed". A resumed handshake verifies nothing again, but the user whom a client's
certificate stands for is looked up each time, in the map that counts now.
"""

from __future__ import annotations

import hashlib
import traceback
from collections import OrderedDict
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL, crypto

from attls import errors
from attls.errors import KeyringError, Reason, TlsError
from attls.keyring import Identity, Keyring, UserMap
from attls.model import ClientAuthType, HandshakeRole, Protocol, TlsSettings
from attls.tls import ciphers, names, reasons, verification
from attls.tls.inquiry import Inquiries, Inquiry
from attls.tls.verification import Peer

_VERSIONS = {
    Protocol.SSLV3: SSL.SSL3_VERSION,
    Protocol.TLSV1: SSL.TLS1_VERSION,
    Protocol.TLSV1_1: SSL.TLS1_1_VERSION,
    Protocol.TLSV1_2: SSL.TLS1_2_VERSION,
    Protocol.TLSV1_3: SSL.TLS1_3_VERSION,
}
_SWITCH_OFF = {
    Protocol.SSLV3: SSL.OP_NO_SSLv3,
    Protocol.TLSV1: SSL.OP_NO_TLSv1,
    Protocol.TLSV1_1: SSL.OP_NO_TLSv1_1,
    Protocol.TLSV1_2: SSL.OP_NO_TLSv1_2,
    Protocol.TLSV1_3: SSL.OP_NO_TLSv1_3,
}
_DEFAULT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
_OLDER_DEFAULT_CIPHERS = _DEFAULT_CIPHERS + ":ECDHE+AES:DHE+AES:RSA+AESGCM:RSA+AES:@SECLEVEL=0"
_OLD_PROTOCOLS = {Protocol.SSLV3, Protocol.TLSV1, Protocol.TLSV1_1}
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: an intermediate CA on the ring is an anchor, as on z/OS


class Environment:
    """One shared context for all connections that have equal settings and the same key ring.

    Raises KeyringError when the ring cannot serve the role (no certificate, no key, no CA) and TlsError when OpenSSL
    refuses a setting. Safe to drop at any time: engines keep what they need alive. `users` says which client
    certificate stands for whom; it may be replaced at any time and counts from the next handshake on.
    """

    def __init__(self, settings: TlsSettings, keyring: Keyring, *, users: UserMap | None = None) -> None:
        self.settings = settings
        self.keyring = keyring
        self.users = users if users is not None else UserMap()
        self.is_server = settings.role is not HandshakeRole.CLIENT
        # A certificate that nobody verified says nothing about who its holder is.
        self.knows_users = (
            settings.role is HandshakeRole.SERVER_WITH_CLIENT_AUTH
            and settings.client_auth is not ClientAuthType.PASS_THRU
        )
        verifies = settings.role is HandshakeRole.CLIENT or self.knows_users
        self._inquiries = Inquiries(settings.revocation) if settings.revocation is not None and verifies else None
        self._has_mode = settings.certificate_validation != "Any"  # what Any asks for, OpenSSL has checked
        self._keeps_chain = self._has_mode or self._inquiries is not None
        # A resumed handshake brings no chain that could be asked about, so where revocation counts there is none.
        self._resumes = bool(settings.session_timeout and settings.session_cache_size) and self._inquiries is None
        self._sessions: OrderedDict[tuple[str, int], tuple[SSL.Session, float]] = OrderedDict()
        try:
            self._context = self._build()
        except SSL.Error as error:
            reason, detail = reasons.of_openssl(error.args[0] if error.args else ())
            raise TlsError(
                Reason(reason.code, errors.ENVIRONMENT.word, f"OpenSSL refuses the settings of the rule: {detail}")
            ) from error

    def engine(self, destination: tuple[str, int], now: float, *, job: str = "") -> SSL.Connection:
        """Return a fresh engine over memory buffers, ready for `do_handshake`.

        `destination` is the address and port that the connection goes to; a client resumes the session it last had
        there, if one is younger than the session timeout at `now` (seconds of a monotonic clock). `job` names the
        program, for maps from certificates to users that depend on it.
        """
        engine = SSL.Connection(self._context, None)
        if self.settings.role is not HandshakeRole.SERVER:
            engine.set_app_data(Peer(job))
        if self.is_server:
            engine.set_accept_state()
            return engine
        engine.set_connect_state()
        if self._inquiries is not None:
            engine.request_ocsp()
        if self.settings.sni_names:
            engine.set_tlsext_host_name(self.settings.sni_names[0].encode("idna"))
        session, expires = self._sessions.get(destination, (None, 0.0))
        if session is not None and now < expires:
            engine.set_session(session)
        return engine

    def remember(self, engine: SSL.Connection, destination: tuple[str, int], now: float) -> None:
        """Keep a client's session for the next connection to `destination`, dropping the oldest when full."""
        settings = self.settings
        if self.is_server or not settings.client_tickets or not self._resumes:
            return
        session = engine.get_session()
        if session is None:
            return
        self._sessions[destination] = (session, now + settings.session_timeout)
        self._sessions.move_to_end(destination)
        while len(self._sessions) > settings.session_cache_size:
            self._sessions.popitem(last=False)

    def forget(self, destination: tuple[str, int]) -> None:
        """Resume none of the sessions made so far: a client's with `destination`, any client's of a server.

        A server's sessions and tickets are OpenSSL's, which gives no hold on a single one. So there is a new context,
        and what was issued under the old one falls back to a full handshake; living engines keep the old one.
        """
        if self.is_server:
            self._context = self._build()
        else:
            self._sessions.pop(destination, None)

    def explain(self, engine: SSL.Connection, error: SSL.Error) -> tuple[Reason, str]:
        """Return the reason and detail of a failed handshake or record of `engine`."""
        peer = engine.get_app_data()
        if isinstance(peer, Peer) and peer.reason is not None:
            return peer.reason, peer.detail
        return reasons.of_openssl(error.args[0] if error.args else ())

    def peer(self, engine: SSL.Connection) -> tuple[bytes | None, str | None]:
        """Return the peer's certificate (DER) and its subject (RFC 4514), or None twice if it presented none."""
        certificate = engine.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return None, None
        return certificate.public_bytes(Encoding.DER), certificate.subject.rfc4514_string()

    def user(self, engine: SSL.Connection) -> str | None:
        """Return the user whom the client's certificate stands for, after a handshake, None for nobody.

        Raises TlsError (5002) for nobody where ClientAuthType is SAFCheck. Only where `knows_users`.
        """
        peer: Peer = engine.get_app_data()
        if not peer.user_known:  # a resumed handshake, or a client without certificate
            certificate = engine.get_peer_certificate(as_cryptography=True)
            if certificate is not None:
                peer.look_up(self.users, certificate.public_bytes(Encoding.DER))
        if peer.user is None and self.settings.client_auth is ClientAuthType.SAF_CHECK:
            raise TlsError(errors.NO_USER)
        return peer.user

    @property
    def asks_about_revocation(self) -> bool:
        """Whether there is an `inquiry` to be made after each handshake, before anything else happens."""
        return self._inquiries is not None

    def inquiry(self, engine: SSL.Connection) -> Inquiry:
        """Return what is to be asked about the peer of `engine`, whose handshake is over.

        Only where it `asks_about_revocation`. A client that sent no certificate has nothing to be asked about.
        """
        assert self._inquiries is not None
        peer: Peer = engine.get_app_data()
        chain = peer.chain()
        if not chain and engine.get_peer_certificate() is not None:
            raise TlsError(reasons.UNVERIFIED)  # cannot be: nothing is resumed
        return self._inquiries.ask(chain, peer.staple)

    def _build(self) -> SSL.Context:
        settings = self.settings
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        if not settings.application_controlled:
            # A controlling program may ask for new keys (RESET_CIPHER), which before TLS 1.3 is a renegotiation. A
            # client still cannot ask for one: OpenSSL 3 refuses that by itself.
            context.set_options(SSL.OP_NO_RENEGOTIATION)
        self._set_protocols_and_ciphers(context)
        self._set_identity(context)
        self._set_trust(context)
        self._set_sessions(context, settings)
        return context

    def _set_protocols_and_ciphers(self, context: SSL.Context) -> None:
        """Switch on what policy names and nothing else.

        TLS 1.3 suites live in a list of their own. A version whose list is empty is switched off, for an empty list
        would mean "the default" to OpenSSL, not "none".
        """
        settings = self.settings
        old = bool(settings.protocols & _OLD_PROTOCOLS)
        usable = settings.protocols & _VERSIONS.keys()
        if settings.ciphers:
            known = [code for code in settings.ciphers if code in ciphers.OPENSSL_NAMES]
            modern = [ciphers.OPENSSL_NAMES[code] for code in known if ciphers.is_tls13(code)]
            classic = [ciphers.OPENSSL_NAMES[code] for code in known if not ciphers.is_tls13(code)]
            usable = frozenset(one for one in usable if (modern if one is Protocol.TLSV1_3 else classic))
            if modern:
                context.set_tls13_ciphersuites(":".join(modern).encode())
            if classic:
                weak = old or any("NULL" in name for name in classic)
                context.set_cipher_list((":".join(classic) + (":@SECLEVEL=0" if weak else "")).encode())
        else:
            context.set_cipher_list((_OLDER_DEFAULT_CIPHERS if old else _DEFAULT_CIPHERS).encode())
        if not usable:
            raise TlsError(
                Reason(412, "no-protocol", "the rule leaves no TLS version on for which it names a cipher suite")
            )
        context.set_min_proto_version(_VERSIONS[min(usable)])
        context.set_max_proto_version(_VERSIONS[max(usable)])
        for protocol, option in _SWITCH_OFF.items():
            if protocol not in usable:
                context.set_options(option)

    def _set_identity(self, context: SSL.Context) -> None:
        settings = self.settings
        identities = self._identities()
        for identity in identities:
            context.use_certificate(x509.load_der_x509_certificate(identity.certificate))
            context.use_privatekey(load_pem_private_key(identity.private_key, None))  # type: ignore[arg-type]
            context.check_privatekey()
        chain = [certificate for identity in identities for certificate in identity.chain]
        for certificate in dict.fromkeys(chain):
            context.add_extra_chain_cert(x509.load_der_x509_certificate(certificate))
        if self.is_server and not identities:
            raise KeyringError(
                f"the ring {self.keyring.name} has no certificate that the {settings.role.value} role could present", 7
            )

    def _identities(self) -> Sequence[Identity]:
        settings = self.settings
        if settings.certificate_label == "":
            return ()
        if self.is_server and settings.server_certificate_labels:
            return [self.keyring.identity(label) for label in settings.server_certificate_labels]
        if settings.certificate_label is not None or self.is_server:
            return [self.keyring.identity(settings.certificate_label)]
        try:
            return [self.keyring.identity(None)]
        except KeyringError:
            # A client presents a certificate only if it has one; a ring of CAs alone is the usual client ring.
            return ()

    def _set_trust(self, context: SSL.Context) -> None:
        settings = self.settings
        if settings.role is HandshakeRole.SERVER:
            return
        anchors = self.keyring.trust_anchors()
        must_verify = settings.role is HandshakeRole.CLIENT or settings.client_auth is not ClientAuthType.PASS_THRU
        if must_verify and not anchors:
            raise KeyringError(
                f"the ring {self.keyring.name} has no trusted CA certificate to verify the peer with", 109
            )
        store = context.get_cert_store()
        if store is None:
            raise TlsError(errors.ENVIRONMENT)
        store.set_flags(_PARTIAL_CHAIN)
        for anchor in anchors:
            certificate = x509.load_der_x509_certificate(anchor)
            store.add_cert(crypto.X509.from_cryptography(certificate))
        mode = SSL.VERIFY_PEER
        if settings.role is HandshakeRole.SERVER_WITH_CLIENT_AUTH:
            for anchor in anchors:
                context.add_client_ca(x509.load_der_x509_certificate(anchor))
            if settings.client_auth in (ClientAuthType.REQUIRED, ClientAuthType.SAF_CHECK):
                mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(mode, self._verify)
        if self._inquiries is not None and not self.is_server:
            context.set_ocsp_client_callback(_keep_staple)

    def _verify(self, engine: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
        """Judge one certificate of the peer's chain; called by OpenSSL from the root down to depth 0."""
        settings = self.settings
        if settings.role is not HandshakeRole.CLIENT and settings.client_auth is ClientAuthType.PASS_THRU:
            return True
        peer: Peer = engine.get_app_data()
        if not good:
            if depth == 0 and verification.is_for_mode_to_judge(error, settings.certificate_validation):
                return True  # OpenSSL comes back to this certificate when it has seen the whole chain
            peer.refuse(reasons.of_verification(error), f"certificate at depth {depth}, X.509 error {error}")
            return False
        if self._keeps_chain:
            peer.note(depth, certificate)
        if depth:
            return True
        try:
            verification.check_key(certificate, settings)
            if self._has_mode:
                verification.check_mode(peer.chain(), settings)
            self._check_name(certificate)
            if self.knows_users:
                der = certificate.to_cryptography().public_bytes(Encoding.DER)
                peer.look_up(self.users, der)
                if peer.user is None and settings.client_auth is ClientAuthType.SAF_CHECK:
                    peer.refuse(errors.NO_USER, peer.why_nobody)
                    return False
        except verification.RefusedError as error_:
            peer.refuse(error_.reason, error_.detail)
            return False
        except Exception:  # noqa: BLE001 - what leaves a callback is lost; a bug of ours must not let anybody in
            peer.refuse(errors.INTERNAL, traceback.format_exc(limit=-1).splitlines()[-1])
            return False
        return True

    def _check_name(self, certificate: crypto.X509) -> None:
        settings = self.settings
        wanted = settings.host_reference_dns or settings.host_reference_cn
        if wanted is not None and not names.carries(
            certificate.to_cryptography(),
            dns=settings.host_reference_dns,
            common_name=settings.host_reference_cn,
            wildcards=settings.host_wildcards,
        ):
            raise verification.RefusedError(errors.NAME_MISMATCH, f"wanted {wanted}")

    def _set_sessions(self, context: SSL.Context, settings: TlsSettings) -> None:
        caching = self._resumes
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER if caching and self.is_server else SSL.SESS_CACHE_OFF)
        context.set_timeout(max(settings.session_timeout, 1))
        if self.is_server:
            # Binds every session and ticket to exactly these settings and this trust: what was resumed under other
            # checks (another rule, another set of CAs) is refused and falls back to a full handshake.
            trust = hashlib.sha256(b"".join(sorted(self.keyring.trust_anchors()))).hexdigest()
            context.set_session_id(hashlib.sha256(f"{settings!r}\0{self.keyring.name}\0{trust}".encode()).digest())
        if not caching or not (settings.server_tickets if self.is_server else settings.client_tickets):
            context.set_options(SSL.OP_NO_TICKET)


def _keep_staple(engine: SSL.Connection, staple: bytes, _: object) -> bool:
    """Note the OCSP answer that a server sent along; it is judged with the others, once the handshake is over."""
    peer: Peer = engine.get_app_data()
    peer.staple = staple
    return True
