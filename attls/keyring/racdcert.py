"""The z/OS spelling: RACDCERT command lines carried out on a keyring store.

`Session.run` gives the operands of a command their meaning, one method per function. What RACF calls a data set is a
file here: the name in quotes is taken as a path as it stands. Output follows RACF's shape, so that scripts that read it
keep working. PKCS #11 tokens are refused; there is no hardware behind this store.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from attls.errors import KeyringError
from attls.keyring import certificates, files, mapping, names, operations, racf
from attls.keyring.certificates import Profile
from attls.keyring.opening import Store
from attls.keyring.store import Connection, StoredCertificate, default_usage
from attls.keyring.tso import CommandError, Operand, Operands, parse, unabbreviated
from attls.keyring.values import Trust, Usage

_ASKING = frozenset({"LIST", "LISTCHAIN", "CHECKCERT", "LISTRING", "LISTMAP"})
_TOKENS = frozenset({"IMPORT", "BIND", "UNBIND", "ADDTOKEN", "DELTOKEN", "LISTTOKEN"})
# fmt: off
_FUNCTIONS = (
    "ADD", "ALTER", "DELETE", "LIST", "LISTCHAIN", "CHECKCERT", "ADDRING",
    "DELRING", "LISTRING", "CONNECT", "REMOVE", "GENCERT", "GENREQ", "EXPORT",
    "REKEY", "ROLLOVER", "MAP", "ALTMAP", "LISTMAP", "DELMAP",
    *sorted(_TOKENS),
)
# fmt: on
_OWNERS = ("ID", "CERTAUTH", "SITE", "MULTIID")


# Carrying out ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Session:
    """Runs commands for `user`, who is the owner where a command names none; `now` is asked for the time.

    `password` stands for the PASSWORD operand where a command has none. `asks` tells whether the last command only
    asked, so that what it did not find is an answer.
    """

    store: Store
    user: str
    now: Callable[[], datetime.datetime]
    password: bytes | None = None
    asks: bool = False
    _lines: list[str] = field(default_factory=list)

    def run(self, line: str, *, secrets_allowed: bool = True) -> str:
        """Carry out one command line and return what it prints.

        With `secrets_allowed` False a PASSWORD operand is refused: the line could be seen by others. Raises
        CommandError for what cannot be understood, KeyringError for what cannot be done; then nothing was changed.
        """
        self.asks = False
        operands = parse(line)
        if operands and operands[0].keyword in racf.PASSED_OVER:
            return ""
        if operands and operands[0].keyword in racf.COMMANDS:
            return racf.run(self.store, operands)
        if operands and operands[0].keyword == "RACDCERT":
            operands = operands[1:]
        # The owner may stand before the function or behind it: RACDCERT ID(USER1) MAP …, RACDCERT MAP ID(USER1) …
        named = [one for one in operands if one.keyword in _OWNERS and not one.quoted]
        if len(named) > 1:
            raise CommandError(f"{named[0].keyword} and {named[1].keyword} both say whose it is; one owner is enough")
        owner = self.user
        for one in named:
            owner = one.value if one.keyword == "ID" else one.keyword
        others = [one for one in operands if one not in named]
        if not others:
            raise CommandError(f"RACDCERT needs a function: {', '.join(_FUNCTIONS)}")
        head, *rest = others
        function = unabbreviated(head, _FUNCTIONS)
        self.asks = function in _ASKING
        if not secrets_allowed and any("PASSWORD".startswith(one.keyword) and len(one.keyword) > 3 for one in rest):
            raise CommandError(
                "a password on the command line can be seen by others; give it with --password-file, or the whole "
                "command on standard input"
            )
        if function in _TOKENS:
            raise KeyringError(
                f"RACDCERT {function} works on PKCS #11 tokens, which this store does not have; "
                "keep certificate and key in a ring (GENCERT or ADD, then CONNECT)"
            )
        self._lines = []
        method: Callable[[str, Operand, list[Operand]], None] = getattr(self, f"_{function.lower()}")
        method(names.check_owner(owner), head, rest)
        return "\n".join(self._lines)

    def _say(self, *lines: str) -> None:
        self._lines += ["".join(one if one.isprintable() else "?" for one in line) for line in lines]

    # Certificates

    def _add(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "TRUST NOTRUST HIGHTRUST WITHLABEL PASSWORD ICSF PKDS PCICC")
        self._refuse_hardware(given)
        contents = self._read(head.value, given)
        leaf, _, others = certificates.split_identity(contents, name=head.value)
        trust = given.trust
        if trust is None:
            own = (
                certificates.is_self_signed(leaf)
                and leaf.not_valid_before_utc <= self.now() <= leaf.not_valid_after_utc
            )
            trust = Trust.TRUST if own else operations.earned_trust(self.store, leaf, others, now=self.now())
        label = given.value("WITHLABEL") or self._same_key_label(owner, leaf) or self._next_label(owner)
        done = operations.import_certificate(
            self.store, owner=owner, label=label, contents=contents, trust=trust, source=head.value, now=self.now()
        )
        self._say(
            f"Certificate {'renewed' if done.renewed else 'added'} for {_whose(owner)}, label {label}, "
            f"status {trust.value}."
        )
        for added in done.authorities:
            self._say(f"Certificate authority added, label {added.label}, status {added.trust.value}.")

    def _same_key_label(self, owner: str, certificate: x509.Certificate) -> str | None:
        """Find the certificate that this one renews: RACF keeps label and private key for the same public key."""
        public = certificates.public_key_bytes(certificate)
        for stored in self.store.certificates(owner):
            if certificates.public_key_bytes(stored.certificate) == public:
                return stored.label
        return None

    def _next_label(self, owner: str) -> str:
        taken = self.store.labels(owner)
        return next(label for label in (f"LABEL{number:08}" for number in range(1, 10**8)) if label not in taken)

    def _alter(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "TRUST NOTRUST HIGHTRUST NEWLABEL")
        stored = self._selected(owner, head)
        if given.trust is None and not given.has("NEWLABEL"):
            raise CommandError("ALTER changes TRUST, NOTRUST, HIGHTRUST or NEWLABEL; none is given")
        if (label := given.value("NEWLABEL")) is not None:
            self.store.relabel(owner, stored.label, label, trust=given.trust)
        elif given.trust is not None:
            self.store.set_trust(owner, stored.label, given.trust)
        self._say(f"Certificate {stored.label} of {_whose(owner)} altered.")

    def _delete(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        Operands(rest, "FORCE")
        stored = self._selected(owner, head)
        rings = self.store.delete(owner, stored.label)
        self._say(f"Certificate {stored.label} of {_whose(owner)} deleted.")
        self._say(*(f"It was removed from ring {ring.reference}." for ring in rings))

    def _list(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        Operands(rest, "")
        found = [self._selected(owner, head)] if head.operands else self.store.certificates(owner)
        if not found:
            raise names.MissingError(f"no certificate information was found for {_whose(owner)}")
        self._say(f"Digital certificate information for {_whose(owner)}:")
        for stored in found:
            self._say("", *self._listing(stored))

    def _listing(self, stored: StoredCertificate) -> list[str]:
        one = stored.certificate
        kind, _, size = certificates.key_type(one.public_key()).partition("-")
        lines = [
            f"  Label: {stored.label}",
            f"  Certificate ID: {_certificate_id(stored)}",
            f"  Status: {stored.trust.value}",
            f"  Start Date: {one.not_valid_before_utc:%Y/%m/%d %H:%M:%S}",
            f"  End Date:   {one.not_valid_after_utc:%Y/%m/%d %H:%M:%S}",
            "  Serial Number:",
            f"       >{one.serial_number:X}<",
            "  Issuer's Name:",
            f"       >{mapping.NameFilter.of(one.issuer)}<",
            "  Subject's Name:",
            f"       >{mapping.NameFilter.of(one.subject)}<",
        ]
        alternative = certificates.extension_of(one, x509.SubjectAlternativeName)
        if alternative:
            words = {"DNS": "Domain", "EMAIL": "EMail"}
            lines.append("  Subject's AltNames:")
            for name in alternative:
                word, _, value = certificates.general_name(name).partition(":")
                lines.append(f"    {words.get(word, word)}: {value}")
        usage = certificates.extension_of(one, x509.KeyUsage)
        lines.append(f"  Signing Algorithm: {_algorithm(one)}")
        if usage:
            lines.append(f"  Key Usage: {', '.join(_usage_words(usage))}")
        lines += [
            f"  Key Type: {'NIST ECC' if kind == 'ecdsa' else kind.upper()}",
            f"  Key Size: {size.lstrip('p') or '256'}",
            f"  Private Key: {'YES' if self.store.has_key(stored) else 'NO'}",
        ]
        rings = self.store.rings_with(stored.owner, stored.label)
        lines.append("  Ring Associations:" if rings else "  Ring Associations: *** No rings associated ***")
        for ring in rings:
            lines += [f"    Ring Owner: {ring.owner}", "    Ring:", f"       >{ring.name}<"]
        return lines

    def _listchain(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        Operands(rest, "")
        stored = self._selected(owner, head)
        chain = [stored.certificate, *operations.issuers(self.store, stored.certificate)]
        complete = certificates.is_self_signed(chain[-1])
        members = []
        for number, one in enumerate(chain, 1):
            known = self.store.find_same(one) or stored
            members.append((known.owner, known.label))
            self._say(f"Certificate {number}:", f"Digital certificate information for {_whose(known.owner)}:")
            self._say("", *self._listing(known), "")
        expired = any(not one.not_valid_before_utc <= self.now() <= one.not_valid_after_utc for one in chain)
        self._say(
            "Chain information:",
            f"  Chain contains {len(chain)} certificate(s), chain is {'' if complete else 'in'}complete",
        )
        for ring in self.store.rings():
            if set(members) <= {(line.owner, line.label) for line in ring.connections}:
                self._say(f"  Chain contains ring in common: {ring.owner}/{ring.name}")
        if expired:
            self._say("  Chain contains expired certificate(s)")

    def _checkcert(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "PASSWORD")
        for number, one in enumerate(self._read(head.value, given).certificates, 1):
            known = self.store.find_same(one)
            self._say(f"Certificate {number}:")
            if known:
                self._say(f"Digital certificate information for {_whose(known.owner)}:", "", *self._listing(known), "")
            else:
                shown = StoredCertificate(owner, owner, "(not in the store)", Trust.NOTRUST, one)
                self._say(*self._listing(shown), "")

    def _gencert(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(
            rest,
            "SUBJECTSDN SIZE NOTBEFORE NOTAFTER WITHLABEL SIGNWITH RSA DSA NISTECC BPECC PKDS PCICC ICSF TOKEN "
            "KEYUSAGE ALTNAME FROMICSF",
        )
        self._refuse_hardware(given)
        request = self._request(head.value) if head.operands else None
        usages = _words(given.get("KEYUSAGE"))
        unknown = set(usages) - _KEY_USAGES.keys()
        if unknown:
            raise CommandError(f"KEYUSAGE takes {', '.join(_KEY_USAGES)}, not {', '.join(sorted(unknown))}")
        profile = Profile(
            subject=_subject(given.get("SUBJECTSDN")) or (request.subject if request else x509.Name([])),
            days=365,
            names=_alternative(given.get("ALTNAME")),
            is_authority="CERTSIGN" in usages or (owner == names.CERTAUTH and not usages),
            begins=_moment(given.get("NOTBEFORE"), "00:00:00"),
            ends=_moment(given.get("NOTAFTER"), "23:59:59"),
            usages=tuple(word for usage in usages for word in _KEY_USAGES[usage]),
        )
        if not profile.subject.rdns:
            raise CommandError("SUBJECTSDN(…) is missing")
        signer_operand = given.get("SIGNWITH")
        signed_by = operations.signer(self.store, *self._signer(owner, signer_operand)) if signer_operand else None
        label = given.value("WITHLABEL") or self._next_label(owner)
        if request is not None:
            if signed_by is None:
                raise CommandError("a request is signed with SIGNWITH(…)")
            made = operations.sign_request(request, signed_by=signed_by, profile=profile, now=self.now())
            key = self.store.key_for_request(owner, label, made)
            self.store.add(
                owner, label, made, trust=Trust.TRUST, private_key=key, replace=self._renews(owner, label, made)
            )
        else:
            kind = _key_kind(given)
            operations.create(
                self.store,
                owner=owner,
                label=label,
                profile=profile,
                key_type=kind,
                signed_by=signed_by,
                now=self.now(),
            )
        self._say(f"Certificate generated for {_whose(owner)}, label {label}.")

    def _renews(self, owner: str, label: str, made: x509.Certificate) -> bool:
        if not self.store.has_certificate(owner, label):
            return False
        old = self.store.certificate(owner, label).certificate
        return certificates.public_key_bytes(old) == certificates.public_key_bytes(made)

    def _signer(self, owner: str, operand: Operand) -> tuple[str, str]:
        given = Operands(list(operand.operands or ()), "CERTAUTH SITE ID LABEL")
        if given.has("CERTAUTH"):
            owner = names.CERTAUTH
        elif given.has("SITE"):
            owner = names.SITE
        elif (user := given.value("ID")) is not None:
            owner = user
        return given.required("LABEL"), owner

    def _genreq(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "DSN")
        stored = self._selected(owner, head)
        made = operations.request(
            self.store, owner=owner, label=stored.label, subject=None, alternative=(), key_type="rsa-2048"
        )
        self._write(given.required("DSN"), made.public_bytes(certificates.PEM_ENCODING), secret=False)

    def _export(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "DSN FORMAT PASSWORD")
        stored = self._selected(owner, head)
        password = self._password(given)
        form = (given.value("FORMAT") or ("CERTB64" if password is None else "PKCS12DER")).upper()
        known = {
            "CERTDER": "der",
            "CERTB64": "pem",
            "PKCS7DER": "p7b",
            "PKCS7B64": "p7b",
            "PKCS12DER": "p12",
            "PKCS12B64": "p12",
        }
        if form not in known:
            raise CommandError(f"FORMAT takes {', '.join(known)}, not {form}")
        with_key = known[form] == "p12"
        content = operations.export(
            self.store, stored, form=known[form], with_key=with_key, with_chain=False, password=password
        )
        self._write(given.required("DSN"), _encoded(content, form), secret=with_key)

    def _rekey(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "WITHLABEL SIZE NOTBEFORE NOTAFTER RSA NISTECC BPECC PKDS PCICC ICSF TOKEN")
        self._refuse_hardware(given)
        stored = self._selected(owner, head)
        profile = replace(
            certificates.renewed_profile(stored.certificate),
            begins=_moment(given.get("NOTBEFORE"), "00:00:00"),
            ends=_moment(given.get("NOTAFTER"), "23:59:59"),
        )
        asked = given.has("SIZE") or given.has("RSA") or given.has("NISTECC")
        kind = _key_kind(given) if asked else certificates.same_key_type(stored.certificate)
        label = given.value("WITHLABEL") or self._next_label(owner)
        operations.create(
            self.store, owner=owner, label=label, profile=profile, key_type=kind, signed_by=None, now=self.now()
        )
        self._say(
            f"Certificate {stored.label} of {_whose(owner)} rekeyed, label {label}; "
            "it is self-signed until an authority signs a request for it."
        )

    def _rollover(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "NEWLABEL FORCE")
        stored = self._selected(owner, head)
        new = given.required("NEWLABEL")
        operations.rollover(self.store, owner=owner, label=stored.label, new_label=new, now=self.now())
        self._say(
            f"Certificate {new} of {_whose(owner)} took the place of {stored.label}, whose private key is deleted."
        )

    # Rings

    def _addring(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        Operands(rest, "")
        self.store.create_ring(owner, names.check_ring_name(head.value))
        self._say(f"Ring {owner}/{head.value} added.")

    def _delring(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        Operands(rest, "FORCE")
        self.store.delete_ring(owner, names.check_ring_name(head.value))
        self._say(f"Ring {owner}/{head.value} deleted.")

    def _listring(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        Operands(rest, "")
        rings = self.store.rings(owner) if head.value == "*" else [self.store.definition(owner, head.value)]
        if not rings:
            raise names.MissingError(f"no ring was found for {_whose(owner)}")
        self._say(f"Digital ring information for {_whose(owner)}:")
        for ring in rings:
            self._say("", "  Ring:", f"       >{ring.name}<")
            if not ring.connections:
                self._say("  *** No certificates connected ***")
                continue
            self._say(
                "  Certificate Label Name             Cert Owner     USAGE      DEFAULT",
                "  --------------------------------   ------------   --------   -------",
            )
            for line in ring.connections:
                shown = line.owner if line.owner in {names.CERTAUTH, names.SITE} else f"ID({line.owner})"
                self._say(
                    f"  {line.label:<32}   {shown:<12}   {line.usage.value:<8}   {'  YES' if line.default else '  NO'}"
                )

    def _connect(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given, cert_owner, ring = self._connection(owner, head, rest, "ID CERTAUTH SITE LABEL RING DEFAULT USAGE")
        usage = default_usage(cert_owner)
        if (word := given.value("USAGE")) is not None:
            if word.upper() not in Usage.__members__:
                raise CommandError(f"USAGE takes PERSONAL, CERTAUTH or SITE, not {word}")
            usage = Usage(word.upper())
        line = Connection(cert_owner, given.required("LABEL"), usage, given.has("DEFAULT"))
        self.store.connect(owner, names.check_ring_name(ring), line)
        self._say(f"Certificate {line.label} of {_whose(cert_owner)} connected to ring {owner}/{ring}.")

    def _remove(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given, cert_owner, ring = self._connection(owner, head, rest, "ID CERTAUTH SITE LABEL RING")
        label = given.required("LABEL")
        self.store.disconnect(owner, names.check_ring_name(ring), certificate_owner=cert_owner, label=label)
        self._say(f"Certificate {label} of {_whose(cert_owner)} removed from ring {owner}/{ring}.")

    def _connection(self, owner: str, head: Operand, rest: list[Operand], known: str) -> tuple[Operands, str, str]:
        Operands(rest, "")
        given = Operands(list(head.operands or ()), known)
        cert_owner = owner
        if given.has("CERTAUTH"):
            cert_owner = names.CERTAUTH
        elif given.has("SITE"):
            cert_owner = names.SITE
        elif (user := given.value("ID")) is not None:
            cert_owner = names.check_owner(user)
        return given, cert_owner, given.required("RING")

    # User mapping

    def _map(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "SDNFILTER IDNFILTER WITHLABEL TRUST NOTRUST CRITERIA")
        model = self._read(head.value, given).certificates[0] if head.operands else None
        subject, issuer = given.value("SDNFILTER"), given.value("IDNFILTER")
        if subject is None and issuer is None:
            raise CommandError("MAP needs SDNFILTER, IDNFILTER or both")
        taken = [entry.label for entry in self.store.filters(owner)]
        label = given.value("WITHLABEL") or next(
            one for one in (f"LABEL{number:08}" for number in range(1, 10**8)) if one not in taken
        )
        entry = mapping.MapFilter(
            label,
            None if owner == mapping.MULTIID else owner,
            _filter(subject, model.subject if model else None),
            _filter(issuer, model.issuer if model else None),
            given.trust or Trust.TRUST,
            self._criteria(given.get("CRITERIA")),
        )
        self.store.add_filter(entry)
        self._say(f"Mapping {label} for {_whose(owner)} added.")

    def _criteria(self, operand: Operand | None) -> str | None:
        if operand is None:
            return None
        return "".join(part.text for part in operand.operands or ())

    def _altmap(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        given = Operands(rest, "TRUST NOTRUST NEWLABEL NEWCRITERIA")
        old = self._mapping(owner, head)
        new = replace(
            old,
            trust=given.trust or old.trust,
            label=given.value("NEWLABEL") or old.label,
            criteria=self._criteria(given.get("NEWCRITERIA")) or old.criteria,
        )
        self.store.replace_filter(old, new)
        self._say(f"Mapping {old.label} for {_whose(owner)} altered.")

    def _listmap(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        Operands(rest, "")
        found = [self._mapping(owner, head)] if head.operands else self.store.filters(owner)
        if not found:
            raise names.MissingError(f"no mapping information was found for {_whose(owner)}")
        self._say(f"Mapping information for {_whose(owner)}:")
        for entry in found:
            self._say("", f"  Label: {entry.label}", f"  Status: {entry.trust.value}")
            for title, part in (("Issuer's Name Filter", entry.issuer), ("Subject's Name Filter", entry.subject)):
                if part is not None:
                    self._say(f"  {title}:", f"       >{part}<")
            if entry.criteria is not None:
                self._say("  Criteria:", f"       {entry.criteria}")

    def _delmap(self, owner: str, head: Operand, rest: list[Operand]) -> None:
        Operands(rest, "")
        entry = self._mapping(owner, head)
        self.store.delete_filter(owner, entry.label)
        self._say(f"Mapping {entry.label} for {_whose(owner)} deleted.")

    def _mapping(self, owner: str, head: Operand) -> mapping.MapFilter:
        found = self.store.filters(owner)
        if head.operands:
            label = Operands(list(head.operands), "LABEL").required("LABEL")
            found = [entry for entry in found if entry.label == label]
        if len(found) != 1:
            raise names.MissingError(
                f"{_whose(owner)} has {len(found) or 'no'} such mappings; name one with LABEL('…')"
            )
        return found[0]

    # What they share

    def _selected(self, owner: str, head: Operand) -> StoredCertificate:
        """Find the certificate that LABEL, or SERIALNUMBER and ISSUERSDN, or nothing names."""
        given = Operands(list(head.operands or ()), "LABEL SERIALNUMBER ISSUERSDN")
        if (label := given.value("LABEL")) is not None:
            return self.store.certificate(owner, label)
        found = self.store.certificates(owner)
        if (serial := given.value("SERIALNUMBER")) is not None:
            found = [one for one in found if f"{one.certificate.serial_number:X}" == serial.upper().lstrip("0")]
        if (issuer := given.value("ISSUERSDN")) is not None:
            found = [one for one in found if str(mapping.NameFilter.of(one.certificate.issuer)) == issuer]
        if len(found) != 1:
            raise names.MissingError(
                f"{_whose(owner)} has {len(found) or 'no'} certificates that fit; name one with LABEL('…')", 407
            )
        return found[0]

    def _read(self, name: str, given: Operands) -> certificates.Contents:
        try:
            data = files.read_any(Path(name))
        except OSError as error:
            raise KeyringError(f"cannot read {name}: {error.strerror}") from error
        contents = certificates.read(data, password=self._password(given), name=name)
        if not contents.certificates:
            raise KeyringError(f"there is no certificate in {name}", 103)
        return contents

    def _request(self, name: str) -> x509.CertificateSigningRequest:
        try:
            requests = certificates.read(files.read_any(Path(name)), name=name).requests
        except OSError as error:
            raise KeyringError(f"cannot read {name}: {error.strerror}") from error
        if len(requests) != 1:
            raise KeyringError(f"{name} holds {len(requests) or 'no'} signing requests; exactly one is needed")
        return requests[0]

    def _password(self, given: Operands) -> bytes | None:
        if given.has("PASSWORD"):
            return given.required("PASSWORD").encode()
        return self.password

    def _write(self, name: str, content: bytes, *, secret: bool) -> None:
        files.replace(Path(name), content, mode=0o600 if secret else 0o644)
        self._say(f"Written to {name}.")

    def _refuse_hardware(self, given: Operands) -> None:
        for keyword in ("ICSF", "PKDS", "PCICC", "TOKEN", "FROMICSF"):
            if given.has(keyword):
                raise KeyringError(f"{keyword} asks for hardware that this store does not have; leave it out")


_KEY_USAGES = {
    "HANDSHAKE": (),  # digital signature, and key encipherment where the key can do it, are in every certificate
    "DATAENCRYPT": ("data_encipherment",),
    "DOCSIGN": ("content_commitment",),
    "KEYAGREE": ("key_agreement",),
    "CERTSIGN": (),
}


def _usage_words(usage: x509.KeyUsage) -> list[str]:
    facts = {
        "HANDSHAKE": usage.digital_signature,
        "DATAENCRYPT": usage.data_encipherment,
        "DOCSIGN": usage.content_commitment,
        "CERTSIGN": usage.key_cert_sign,
        "KEYAGREE": usage.key_agreement,
    }
    return [word for word, present in facts.items() if present]


def _whose(owner: str) -> str:
    return {names.CERTAUTH: "CERTAUTH", names.SITE: "SITE", mapping.MULTIID: "MULTIID"}.get(owner, f"user {owner}")


def _certificate_id(stored: StoredCertificate) -> str:
    """Return RACF's name of a certificate: x'D9', length and text of the owner, the label; in EBCDIC, then Base64."""
    owner = {names.CERTAUTH: "irrcerta", names.SITE: "irrsitec"}.get(stored.owner, stored.owner)
    text = (owner + stored.label).encode("cp037", "replace")
    packed = bytes([0xD9, len(owner)]) + text
    return base64.b64encode(packed + b"\x40" * (-len(packed) % 3)).decode()


def _algorithm(certificate: x509.Certificate) -> str:
    word = str(certificates.summary(certificate)["signature"])
    hashed = re.search(r"SHA-?(\d+)", word, re.IGNORECASE)
    if hashed is None:
        return word
    return f"sha{hashed[1]}{'ECDSA' if 'ecdsa' in word.lower() else 'RSA'}"


def _words(operand: Operand | None) -> list[str]:
    return [part.keyword for part in operand.operands or ()] if operand else []


_SUBJECT_PARTS = {
    "C": NameOID.COUNTRY_NAME,
    "SP": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "T": NameOID.TITLE,
    "CN": NameOID.COMMON_NAME,
}


def _subject(operand: Operand | None) -> x509.Name | None:
    """Build the name that SUBJECTSDN spells, least specific part first whatever the order of the operands."""
    if operand is None:
        return None
    given = Operands(list(operand.operands or ()), " ".join(_SUBJECT_PARTS))
    parts = []
    for keyword, oid in _SUBJECT_PARTS.items():
        part = given.get(keyword)
        for value in reversed(part.operands or ()) if part else ():
            try:
                parts.append(x509.NameAttribute(oid, value.text))
            except ValueError as error:
                raise CommandError(f"{keyword}('{value.text}'): {error}") from error
    return x509.Name(parts)


def _alternative(operand: Operand | None) -> tuple[x509.GeneralName, ...]:
    if operand is None:
        return ()
    prefixes = {"IP": "IP", "DOMAIN": "DNS", "EMAIL": "EMAIL", "URI": "URI"}
    given = Operands(list(operand.operands or ()), " ".join(prefixes))
    found: list[x509.GeneralName] = []
    for keyword, prefix in prefixes.items():
        part = given.get(keyword)
        for value in part.operands or () if part else ():
            found += certificates.alternative_names(f"{prefix}:{value.text}")
    return tuple(found)


def _moment(operand: Operand | None, default_time: str) -> datetime.datetime | None:
    if operand is None:
        return None
    given = Operands(list(operand.operands or ()), "DATE TIME")
    date, time = given.value("DATE"), given.value("TIME") or default_time
    text = f"{(date or '').replace('/', '-')} {time}"
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.UTC)
    except ValueError as error:
        raise CommandError(
            f"{operand.keyword} is written like {operand.keyword}(DATE(2030-12-31) TIME(23:59:59))"
        ) from error


def _key_kind(given: Operands) -> str:
    elliptic = given.has("NISTECC") or given.has("BPECC")
    size = given.value("SIZE") or ("256" if elliptic else "2048")
    if given.has("DSA") or given.has("BPECC"):
        raise KeyringError("TLS has no use for such keys here; take RSA or NISTECC")
    kind = f"ecdsa-p{size}" if elliptic else f"rsa-{size}"
    if kind not in certificates.KEY_TYPES:
        sizes = "256, 384 or 521 with NISTECC" if elliptic else "2048, 3072 or 4096 with RSA"
        raise KeyringError(f"SIZE({size}) is not offered; take {sizes}")
    return kind


def _filter(text: str | None, model: x509.Name | None) -> mapping.NameFilter | None:
    if text is None:
        return None
    return mapping.from_model(model, text) if model is not None else mapping.NameFilter.read(text)


def _encoded(content: bytes, form: str) -> bytes:
    """Turn what `operations.export` wrote into DER or Base64, as FORMAT asks for."""
    if form == "PKCS7DER":
        return certificates.pem_body(content)
    if form == "PKCS12B64":
        return certificates.pem_wrapped(content, "PKCS12")
    return content
