"""What `attls policy check --keyrings` finds: whether the rings of a policy hold what its rules need.

Everything is looked at as the daemon would at its next start, so an error here is a rule whose connections it would
refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from attls.daemon.generation import belongs_to_connection_user, with_code
from attls.errors import Diagnostic, KeyringError
from attls.keyring import Identity, Keyring, Store, Usage, certificates
from attls.keyring.revocation import crl_problem, is_list_of, read_crl
from attls.keyring.signatures import check_pair
from attls.model import HandshakeRole, Protocol, Revocation, TlsSettings
from attls.policy import PolicySet, Rule, codes
from attls.tls.verification import has_curve

_EXPIRES_SOON = timedelta(days=30)


def ring_findings(policy: PolicySet, store: Store, now: datetime) -> Iterator[Diagnostic]:
    """Look for missing rings, labels and authorities, and for what is there and will not do.

    That is: certificates that end soon, keys that fit no cipher or cannot sign, lists that count no more.
    """
    told: set[tuple[object, ...]] = set()
    for rule in policy.rules:
        settings = rule.verdict.settings
        if settings is None or not settings.keyring:
            continue
        user = None if rule.conditions.user is None or set(rule.conditions.user) & {"*", "?"} else rule.conditions.user
        users: list[str | None] = [user]
        if user is None and belongs_to_connection_user(settings.keyring):
            try:  # which users there will be is not known here; those who have such a ring are looked at
                users = [ring.owner for ring in store.rings() if ring.name == settings.keyring]
            except KeyringError as error:
                yield _at(rule, "error", "missing-ring", with_code(error))
                continue
            if not users:
                yield _at(rule, "error", "missing-ring", f"no user has a ring of the name '{settings.keyring}'")
        for user in users:
            if (settings, user) in told:
                continue
            told.add((settings, user))
            try:
                ring = store.ring(
                    settings.keyring, user, password=settings.keyring_password, stash_file=settings.keyring_stash_file
                )
            except KeyringError as error:
                yield _at(rule, "error", "missing-ring", with_code(error))
                continue
            for severity, code, what in _of_ring(settings, ring, now):
                if (settings.keyring, user, what) not in told:
                    told.add((settings.keyring, user, what))
                    yield _at(rule, severity, code, what)


def _of_ring(settings: TlsSettings, ring: Keyring, now: datetime) -> Iterator[tuple[str, str, str]]:
    if not ring.trust_anchors() and settings.role is not HandshakeRole.SERVER:
        yield "warning", "no-authority", f"ring {ring.name} trusts no authority"
    if settings.role is not HandshakeRole.SERVER and not ring.name.startswith("*"):  # virtual rings are others' care
        for entry in ring.entries:
            if entry.is_trusted and entry.usage is not Usage.PERSONAL:
                ends = certificates.load_certificate(entry.certificate).not_valid_after_utc
                yield from _end(f"authority '{entry.label}' of {entry.owner}", ends, now)
    identities = []
    fits = False
    for label in _labels(settings):
        try:
            identity = ring.identity(label)
        except KeyringError as error:
            if label is not None or settings.role is not HandshakeRole.CLIENT:  # a client needs none
                yield "error", "missing-label", with_code(error)
            continue
        identities.append(identity)
        certificate = certificates.load_certificate(identity.certificate)
        fits = fits or _fits(settings, certificates.key_type(certificate.public_key()))
        if not has_curve(certificate, settings.certificate_curves):
            yield (
                "error",
                "cannot-meet",
                f"the key of certificate '{identity.label}' of {identity.owner} is on no curve of the SuiteBProfile",
            )
        yield from _end(f"certificate '{identity.label}' of {identity.owner}", certificate.not_valid_after_utc, now)
    if settings.role is not HandshakeRole.CLIENT and identities and not fits:
        label, owner = identities[0].label, identities[0].owner
        yield (
            "warning",
            "cannot-meet",
            f"none of the ciphers {', '.join(settings.ciphers)} works with the key of certificate '{label}' of "
            f"{owner}: nothing can be agreed on",
        )
    yield from _of_revocation(settings, ring, identities, now)


def _end(what: str, ends: datetime, now: datetime) -> Iterator[tuple[str, str, str]]:
    if ends - now < _EXPIRES_SOON:
        yield "warning", "expires-soon", f"{what} {'expired' if ends <= now else 'expires'} on {ends:%Y-%m-%d}"


def _of_revocation(
    settings: TlsSettings, ring: Keyring, identities: list[Identity], now: datetime
) -> Iterator[tuple[str, str, str]]:
    asked = settings.revocation or Revocation()
    if asked.ocsp_signer is not None:
        try:
            signer = ring.identity(asked.ocsp_signer)
            check_pair(asked.ocsp_signer_algorithm, certificates.load_certificate(signer.certificate))
        except KeyringError as error:
            yield "error", "cannot-sign", f"OcspRequestSigkeylabel: {error}"
    if asked.staples and settings.role is not HandshakeRole.CLIENT:
        for identity in identities:
            if ring.issuer(identity.certificate) is None:
                yield (
                    "warning",
                    "nothing-to-staple",
                    f"nothing can be stapled for '{identity.label}' of {identity.owner}: the authority that signed it "
                    f"is not on ring {ring.name}",
                )
    if settings.role is HandshakeRole.SERVER:
        return
    anchors = [certificates.load_certificate(anchor) for anchor in ring.trust_anchors()]
    for found in ring.lists:
        crl = read_crl(found)
        problems = [crl_problem(crl, anchor, now=now) for anchor in anchors if is_list_of(crl, anchor)]
        if problems and None not in problems:
            severity = "warning" if asked.level == "Low" else "error"
            issuer = certificates.name_of(crl.issuer)
            yield severity, "useless-list", f"the revocation list of '{issuer}' on ring {ring.name}: {problems[0]}"


def _fits(settings: TlsSettings, key_type: str) -> bool:
    # Up to TLS 1.2 the name of a cipher suite says what kind of key the server needs; those of TLS 1.3 take any.
    if not settings.ciphers:
        return True
    if Protocol.TLSV1_3 in settings.protocols and not codes.TLSV1_3_CIPHERS.isdisjoint(settings.ciphers):
        return True
    wanted = "RSA_WITH" if key_type.startswith("rsa") else "ECDSA_WITH"
    return any(wanted in codes.CIPHERS[code] for code in settings.ciphers)


def _labels(settings: TlsSettings) -> tuple[str | None, ...]:
    # The certificates that will be asked for; None is the ring's default one.
    if settings.certificate_label == "":
        return ()
    if settings.role is HandshakeRole.CLIENT:
        return (settings.certificate_label,)
    named = (*settings.server_certificate_labels, *(label for _, label in settings.server_sni))
    return named or (settings.certificate_label,)


def _at(rule: Rule, severity: str, code: str, what: str) -> Diagnostic:
    return Diagnostic(severity, rule.file, rule.line, 1, code, f"TTLSRule '{rule.name}': {what}")
