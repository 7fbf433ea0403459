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
import logging
import traceback
from collections import OrderedDict
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL, crypto

from attls import errors
from attls.errors import KeyringError, Reason, TlsError
from attls.keyring import Identity, Keyring, UserMap
from attls.model import ClientAuthType, Demand, HandshakeRole, Protocol, Revocation, TlsSettings, without_gap
from attls.tls import ciphers, groups, hello, library, names, reasons, verification
from attls.tls.engine import (
    MISSING_EXTENSION,
    UNRECOGNIZED_NAME,
    CheckingEngine,
    HearingEngine,
    Refusal,
    RefusingEngine,
)
from attls.tls.inquiry import Inquiries, Inquiry
from attls.tls.stapling import Staples
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
_OLD_PROTOCOLS = {Protocol.TLSV1, Protocol.TLSV1_1}
_NO_EXTENDED_MASTER_SECRET = 0x1  # SSL_OP_NO_EXTENDED_MASTER_SECRET, an option pyOpenSSL has no name for
_WARNED_OF_NAME = 0x100 | UNRECOGNIZED_NAME  # alert level "warning" and its number, as info callbacks get them
_PARTIAL_WRITE = 0x1  # SSL_MODE_ENABLE_PARTIAL_WRITE: one record for each call
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: an intermediate CA on the ring is an anchor, as on z/OS
_log = logging.getLogger("attls.stapling")


class Environment:
    """One shared context for all connections that have equal settings and the same key ring.

    Raises KeyringError when the ring cannot serve the role (no certificate, no key, no CA) and TlsError when OpenSSL
    refuses a setting. Safe to drop at any time: engines keep what they need alive. `users` says which client
    certificate stands for whom; it may be replaced at any time and counts from the next handshake on.
    """

    def __init__(self, settings: TlsSettings, keyring: Keyring, *, users: UserMap | None = None) -> None:
        if not settings.keyring:
            raise KeyringError("the settings name no key ring; code Keyring in TTLSKeyringParms")
        self.settings = settings
        self.keyring = keyring
        self.users = users if users is not None else UserMap()
        self.is_server = settings.role is not HandshakeRole.CLIENT
        # A certificate that nobody verified says nothing about who its holder is.
        self.knows_users = (
            settings.role is HandshakeRole.SERVER_WITH_CLIENT_AUTH
            and settings.client_auth is not ClientAuthType.PASS_THRU
        )
        # A timer or a controlling program (RESET_CIPHER) asks for new keys, which before TLS 1.3 is a renegotiation.
        may_ask = settings.application_controlled or settings.reset_cipher_timer > 0
        self._renews = may_ask and settings.renegotiation != "Disabled"
        verifies = settings.role is HandshakeRole.CLIENT or self.knows_users
        revocation = settings.revocation or Revocation()
        asks = verifies and (revocation.asks or bool(keyring.lists))
        self._inquiries = self._ready_to_ask(revocation) if asks else None
        self._has_mode = settings.certificate_validation != "Any"  # what Any asks for, OpenSSL has checked
        self._certificate_pairs = frozenset(settings.signature_pairs_cert or settings.signature_pairs)
        self._keeps_chain = self._has_mode or self._inquiries is not None or bool(self._certificate_pairs)
        # A resumed handshake brings no chain that could be asked about, so where revocation counts there is none.
        self._resumes = bool(settings.session_timeout and settings.session_cache_size) and self._inquiries is None
        self._sessions: OrderedDict[tuple[str, int], tuple[SSL.Session, float]] = OrderedDict()
        self._usable: frozenset[Protocol] = frozenset()
        self._server_name = _on_the_wire(settings.sni_names[0]) if settings.sni_names and not self.is_server else b""
        self._labels = dict(settings.server_sni) if self.is_server else {}
        # What a server says of its own certificates; whoever has a network renews it while this environment serves.
        self.staples = self._ready_to_staple(revocation) if self.is_server and revocation.staples else None
        # TLS 1.3 has a list of groups of its own; which one counts is known when the ClientHello has been heard.
        self._has_two_lists = (
            self.is_server
            and Protocol.TLSV1_3 in settings.protocols
            and len(settings.protocols) > 1
            and settings.server_key_share_groups != settings.server_kex_curves
        )
        self._listens = self.is_server and (
            settings.server_sni_demand is not Demand.OFF
            or settings.server_fragment_demand is Demand.REQUIRED
            or settings.server_extended_master_secret is Demand.REQUIRED
            or settings.renegotiation_indicator in ("Server", "Both")
            or self._has_two_lists
        )
        self._checks = not self.is_server and (
            (settings.sni_required and bool(self._server_name))
            or settings.sni_match_required
            or settings.client_extended_master_secret is Demand.REQUIRED
        )
        self._contexts: dict[tuple[str | None, bool], SSL.Context] = {}
        self._renewal: float | None = None
        self._open()

    def engine(self, destination: tuple[str, int], now: float, *, job: str = "") -> SSL.Connection:
        """Return a fresh engine over memory buffers, ready for `do_handshake`.

        `destination` is the address and port that the connection goes to; a client resumes the session it last had
        there, if one is younger than the session timeout at `now` (seconds of a monotonic clock). A server's ticket
        keys are replaced when they are older at `now` than policy lets them be. `job` names the program, for maps from
        certificates to users that depend on it.
        """
        engine = self._engine(destination, now)
        if self.settings.role is not HandshakeRole.SERVER:
            engine.set_app_data(Peer(job))
        return engine

    def _engine(self, destination: tuple[str, int], now: float) -> SSL.Connection:
        if self.is_server:
            self._renew(now)
            engine = (
                HearingEngine(self._context, self._settle, self._judge_client)
                if self._listens
                else SSL.Connection(self._context, None)
            )
            engine.set_accept_state()
            return engine
        engine = CheckingEngine(self._context, self._judge_server) if self._checks else SSL.Connection(self._context)
        engine.set_connect_state()
        if self._inquiries is not None:
            engine.request_ocsp()
        if self._server_name:
            engine.set_tlsext_host_name(self._server_name)
        session, expires = self._sessions.get(destination, (None, 0.0))
        if session is not None and now < expires:
            engine.set_session(session)
        return engine

    def remember(self, engine: SSL.Connection, destination: tuple[str, int], now: float) -> None:
        """Keep a client's session for the next connection to `destination`, dropping the oldest when full."""
        settings = self.settings
        if self.is_server or not self._resumes:
            return
        most = settings.session_cache_size
        if (engine.get_protocol_version() or 0) >= SSL.TLS1_3_VERSION:
            kept = settings.client_tickets_kept
            most = min(most, most if kept is None else kept)
            if not (settings.client_tickets and settings.client_ticket_maximum_size and most):
                return
        session = engine.get_session()
        if session is None:
            return
        self._sessions[destination] = (session, now + settings.session_timeout)
        self._sessions.move_to_end(destination)
        while len(self._sessions) > most:
            self._sessions.popitem(last=False)

    def forget(self, destination: tuple[str, int]) -> None:
        """Resume none of the sessions made so far: a client's with `destination`, any client's of a server.

        A server's sessions and tickets are OpenSSL's, which gives no hold on a single one. So there is a new context,
        and what was issued under the old one falls back to a full handshake; living engines keep the old one.
        """
        if self.is_server:
            self._open()
        else:
            self._sessions.pop(destination, None)

    def explain(self, engine: SSL.Connection, error: SSL.Error) -> tuple[Reason, str]:
        """Return the reason and detail of a failed handshake or record of `engine`."""
        if isinstance(engine, RefusingEngine) and engine.refusal is not None:
            return engine.refusal.reason, engine.refusal.detail
        peer = engine.get_app_data()
        if isinstance(peer, Peer) and peer.reason is not None:
            return peer.reason, peer.detail
        return reasons.of_openssl(error.args[0] if error.args else ())

    def renew(self, engine: SSL.Connection) -> None:
        """Ask for a new handshake of `engine` (TLS 1.2 and older), in which the peer has to be who it was.

        `do_handshake` goes on with it.
        """
        if isinstance(noted := engine.get_app_data(), Peer):
            noted.is_as_before(engine.get_peer_certificate())  # a resumed handshake has verified nothing
        engine.renegotiate()

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

    def _open(self) -> None:
        """Build the contexts that any connection may need at once, so that what is wrong shows before the first."""
        try:
            self._contexts = {}
            self._context = self._context_for(None, older=False)
            for label in (None, *self._labels.values()):
                for older in (False, True) if self._has_two_lists else (False,):
                    self._context_for(label, older=older)
        except SSL.Error as error:
            reason, detail = reasons.of_openssl(error.args[0] if error.args else ())
            raise TlsError(
                Reason(reason.code, errors.ENVIRONMENT.word, f"OpenSSL refuses the settings of the rule: {detail}")
            ) from error

    def _context_for(self, label: str | None, *, older: bool) -> SSL.Context:
        """Return the context with the certificate `label` (None: the usual ones), `older` for up to TLS 1.2."""
        context = self._contexts.get((label, older))
        if context is None:
            context = self._contexts[label, older] = self._build(label, older=older)
        return context

    def _renew(self, now: float) -> None:
        # New contexts have new ticket keys. What was issued under the old ones falls back to a full handshake.
        if Protocol.TLSV1_3 not in self._usable or not self._issues_tickets():
            return
        lifetime = self.settings.server_ticket_key_lifetime
        if self._renewal is None:
            self._renewal = now + lifetime
        elif now >= self._renewal:
            self._renewal = now + lifetime
            self._open()

    def _issues_tickets(self) -> bool:
        settings = self.settings
        return bool(settings.server_tickets and settings.server_ticket_count and self._resumes)

    def _build(self, label: str | None, *, older: bool) -> SSL.Context:
        settings = self.settings
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.clear_mode(_PARTIAL_WRITE)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        if not self._renews:  # where it does, a client still cannot ask for it: OpenSSL refuses that by itself
            context.set_options(SSL.OP_NO_RENEGOTIATION)
        master_secret = (
            settings.server_extended_master_secret if self.is_server else (settings.client_extended_master_secret)
        )
        if master_secret is Demand.OFF:
            context.set_options(_NO_EXTENDED_MASTER_SECRET)
        self._set_protocols_and_ciphers(context)
        library.hold_to_groups(context, self._groups(older=older))
        library.hold_to_signatures(context, settings.signature_pairs)
        self._set_identity(context, label)
        self._set_trust(context)
        self._set_sessions(context, settings)
        if self._labels:
            # Its presence makes the server confirm the name to the client (RFC 6066 section 3).
            context.set_tlsext_servername_callback(_confirm)
        if settings.sni_match_required and not self.is_server:
            context.set_info_callback(_note_unknown_name)
        if self.staples is not None:
            context.set_ocsp_server_callback(self._staple)
        return context

    # What is asked of the peer beyond what OpenSSL looks at

    def _settle(self, client: hello.ClientHello) -> SSL.Context:
        """Choose the context for a client by its first message, or refuse it."""
        settings = self.settings
        if settings.server_fragment_demand is Demand.REQUIRED and hello.MAXIMUM_FRAGMENT not in client.extensions:
            raise Refusal(errors.NO_FRAGMENT, MISSING_EXTENSION)
        label = None
        if settings.server_sni_demand is not Demand.OFF:
            if client.server_name is None and settings.server_sni_demand is Demand.REQUIRED:
                raise Refusal(errors.NO_SERVER_NAME, MISSING_EXTENSION)
            label = self._label_for(client.server_name or "")
            if label is None and client.server_name is not None and settings.server_sni_match_required:
                raise Refusal(errors.UNKNOWN_SERVER_NAME, UNRECOGNIZED_NAME, f"asked for {client.server_name}")
        new = SSL.TLS1_3_VERSION in client.versions and Protocol.TLSV1_3 in self._usable
        return self._context_for(label, older=self._has_two_lists and not new)

    def _label_for(self, name: str) -> str | None:
        # A name of the list may stand for one level of names (RFC 6125 section 6.4.3); the name itself counts more.
        return self._labels.get(name) or self._labels.get(f"*.{name.partition('.')[2]}")

    def _groups(self, *, older: bool) -> str | None:
        settings = self.settings
        if not self.is_server:
            return groups.of_client(settings.client_curves, settings.client_key_share_groups)
        newer = Protocol.TLSV1_3 in settings.protocols and not older
        return groups.of_server(settings.server_key_share_groups if newer else settings.server_kex_curves)

    def _judge_client(self, engine: SSL.Connection, client: hello.ClientHello, done: bool) -> None:
        """Refuse a client for what came out of the handshake so far."""
        settings = self.settings
        version = engine.get_protocol_version() or 0
        if version >= SSL.TLS1_3_VERSION:
            return
        if (
            settings.server_extended_master_secret is Demand.REQUIRED
            and hello.EXTENDED_MASTER_SECRET not in client.extensions
        ):
            raise Refusal(errors.NO_MASTER_SECRET)
        if settings.renegotiation_indicator in ("Server", "Both") and hello.RENEGOTIATION_INFO not in client.extensions:
            raise Refusal(errors.NO_INDICATION)

    def _judge_server(self, engine: SSL.Connection, flight: bytes, done: bool) -> None:
        """Refuse a server for what came out of the handshake so far; `flight` is what it has sent."""
        settings = self.settings
        if isinstance(engine, CheckingEngine) and engine.warned:
            raise Refusal(errors.UNCONFIRMED_NAME, detail="the server does not know the name")
        # TLS 1.3 always has what the extended master secret brought, and confirms a name where we cannot look.
        answer = hello.server_extensions(flight)
        if (engine.get_protocol_version() or 0) >= SSL.TLS1_3_VERSION or (answer is None and not done):
            return
        answer = answer or frozenset()
        if settings.client_extended_master_secret is Demand.REQUIRED and hello.EXTENDED_MASTER_SECRET not in answer:
            raise Refusal(errors.NO_MASTER_SECRET)
        # A resumed session was confirmed when it was made, and is not confirmed again.
        if (
            settings.sni_required
            and self._server_name
            and hello.SERVER_NAME not in answer
            and not hello.resumes(flight)
        ):
            raise Refusal(errors.UNCONFIRMED_NAME)

    # Revocation

    def _ready_to_ask(self, revocation: Revocation) -> Inquiries:
        signer = revocation.ocsp_signer
        identity = self.keyring.identity(signer) if signer is not None else None
        return Inquiries(revocation, lists=self.keyring.lists, identity=identity)

    def _ready_to_staple(self, revocation: Revocation) -> Staples | None:
        labels: list[str | None] = [*self._labels.values()]
        ours = [*self._identities(), *(self.keyring.identity(label) for label in labels)]
        issuers = {one.certificate: self.keyring.issuer(one.certificate) for one in ours}
        known = {certificate: issuer for certificate, issuer in issuers.items() if issuer is not None}
        for one in ours:
            if one.certificate not in known:
                _log.warning(
                    "nothing can be stapled for '%s' of %s: connect the authority that signed it to the ring",
                    one.label,
                    self.keyring.name,
                )
        return Staples(self.keyring.name, known, self._ready_to_ask(revocation)) if known else None

    def _staple(self, engine: SSL.Connection, _: object) -> bytes:
        certificate = engine.get_certificate(as_cryptography=True)
        if self.staples is None or certificate is None:
            return b""
        return self.staples.of(certificate.public_bytes(Encoding.DER))

    # Building a context

    def _set_protocols_and_ciphers(self, context: SSL.Context) -> None:
        """Switch on what policy names and nothing else.

        TLS 1.3 suites live in a list of their own. A version whose list is empty is switched off, for an empty list
        would mean "the default" to OpenSSL, not "none".
        """
        settings = self.settings
        usable = self._offered(settings.protocols)
        if settings.ciphers:
            known = [code for code in settings.ciphers if code in ciphers.OPENSSL_NAMES]
            usable = self._offered(_with_suites(settings.protocols, known))
        old = bool(usable & _OLD_PROTOCOLS)
        if settings.ciphers:
            if not self.is_server and settings.client_dh_group != "Legacy" and old:
                # The old protocols need the library's lowest level, which lets small groups pass.
                known = [code for code in known if not ciphers.NAMES[code].startswith("TLS_DHE_")]
                usable = self._offered(_with_suites(settings.protocols, known))
            modern = [ciphers.OPENSSL_NAMES[code] for code in known if ciphers.is_tls13(code)]
            classic = [ciphers.OPENSSL_NAMES[code] for code in known if not ciphers.is_tls13(code)]
            if modern:
                context.set_tls13_ciphersuites(":".join(modern).encode())
            if classic:
                weak = old or any("NULL" in name for name in classic)
                context.set_cipher_list((":".join(classic) + (":@SECLEVEL=0" if weak else "")).encode())
        else:
            default = _OLDER_DEFAULT_CIPHERS if old else _DEFAULT_CIPHERS
            small_groups = old and not self.is_server and settings.client_dh_group != "Legacy"
            context.set_cipher_list((default + ":!DHE" if small_groups else default).encode())
        if not usable:
            raise TlsError(
                Reason(412, "no-protocol", "the rule leaves no TLS version on for which it names a cipher suite")
            )
        self._usable = usable
        context.set_min_proto_version(_VERSIONS[min(usable)])
        context.set_max_proto_version(_VERSIONS[max(usable)])
        for protocol, option in _SWITCH_OFF.items():
            if protocol not in usable:
                context.set_options(option)

    def _offered(self, protocols: frozenset[Protocol]) -> frozenset[Protocol]:
        spoken = protocols & _VERSIONS.keys()
        return spoken if self.is_server else without_gap(spoken)

    def _set_identity(self, context: SSL.Context, label: str | None) -> None:
        settings = self.settings
        identities = self._identities() if label is None else [self.keyring.identity(label)]
        chains: list[tuple[bytes, ...]] = []
        kinds: set[str] = set()
        largest = 2048
        for identity in identities:
            certificate = x509.load_der_x509_certificate(identity.certificate)
            key = certificate.public_key()
            # One certificate of each kind of key fits into a context; the first of a kind counts.
            if type(key).__name__ in kinds:
                continue
            kinds.add(type(key).__name__)
            if not verification.has_curve(certificate, settings.certificate_curves):
                raise KeyringError(
                    f"the key of certificate '{identity.label}' is on no curve of the SuiteBProfile", 428
                )
            context.use_certificate(certificate)
            # The key room has proven the key when it read it, which takes a third of a second for RSA-4096: not again.
            own = load_pem_private_key(identity.private_key, None, unsafe_skip_rsa_key_validation=True)
            context.use_privatekey(own)  # type: ignore[arg-type]
            context.check_privatekey()
            chains.append(identity.chain)
            if isinstance(key, rsa.RSAPublicKey) and settings.server_dh_group == "Match":
                largest = max(largest, key.key_size)
        if not self.is_server:
            _add_chain(context, chains)
            return
        if not identities:
            raise KeyringError(
                f"the ring {self.keyring.name} has no certificate that the {settings.role.value} role could present", 7
            )
        _add_chain(context, chains)
        groups.set_dh(context, largest)

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
        peer: Peer = engine.get_app_data()
        if self._renews and depth == 0 and not peer.is_as_before(certificate):
            peer.refuse(reasons.OTHER_CERTIFICATE, "")
            return False
        if settings.role is not HandshakeRole.CLIENT and settings.client_auth is ClientAuthType.PASS_THRU:
            return True
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
            if self._certificate_pairs:
                verification.check_signatures(peer.chain(), self._certificate_pairs)
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
        timeout = settings.session_timeout
        tickets = settings.client_tickets
        if self.is_server:
            tickets = self._issues_tickets()
            if Protocol.TLSV1_3 in self._usable:
                # The library has one lifetime for all sessions, and answers TLS 1.3 from its cache where it may not
                # issue tickets: the shorter lifetime counts, and no tickets means no cache.
                timeout = min(timeout, settings.server_ticket_lifetime)
                caching = caching and tickets
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER if caching and self.is_server else SSL.SESS_CACHE_OFF)
        context.set_timeout(max(timeout, 1))
        if self.is_server:
            # Binds every session and ticket to exactly these settings and this trust: what was resumed under other
            # checks (another rule, another set of CAs) is refused and falls back to a full handshake.
            trust = hashlib.sha256(b"".join(sorted(self.keyring.trust_anchors()))).hexdigest()
            context.set_session_id(hashlib.sha256(f"{settings!r}\0{self.keyring.name}\0{trust}".encode()).digest())
        if not caching or not tickets:
            context.set_options(SSL.OP_NO_TICKET)


def _with_suites(protocols: frozenset[Protocol], codes: Sequence[str]) -> frozenset[Protocol]:
    """Return those of `protocols` for which some suite of `codes` is made: TLS 1.3 has suites of its own."""
    new, old = any(map(ciphers.is_tls13, codes)), not all(map(ciphers.is_tls13, codes))
    return frozenset(one for one in protocols if (new if one is Protocol.TLSV1_3 else old))


def _keep_staple(engine: SSL.Connection, staple: bytes, _: object) -> bool:
    """Note the OCSP answer that a server sent along; it is judged with the others, once the handshake is over."""
    peer: Peer = engine.get_app_data()
    peer.staple = staple
    return True


def _on_the_wire(name: str) -> bytes:
    try:
        return name.encode("ascii") if name.isascii() else name.encode("idna")
    except UnicodeError as error:
        raise TlsError(
            Reason(447, "bad-name", f"the host name {name!r} cannot be sent to a server: {error}")
        ) from error


def _add_chain(context: SSL.Context, chains: Sequence[Sequence[bytes]]) -> None:
    # The library knows one list for all certificates of a context; what any of them needs is sent with each.
    for certificate in dict.fromkeys(one for chain in chains for one in chain):
        context.add_extra_chain_cert(x509.load_der_x509_certificate(certificate))


def _confirm(engine: SSL.Connection) -> None:
    """Accept the name that the client asked for: the engine has looked at it before."""


def _note_unknown_name(engine: SSL.Connection, where: int, value: int) -> None:
    # A warning, which the library passes over: the server goes on under another name.
    noted = where & SSL.SSL_CB_READ_ALERT == SSL.SSL_CB_READ_ALERT and value == _WARNED_OF_NAME
    if noted and isinstance(engine, CheckingEngine):
        engine.warned = True
