"""Asking whether a peer's certificates are revoked: which questions, in which order, and what the answers come to.

No I/O happens here. `Inquiries.ask` is a generator: it yields a `Question`, an HTTP request that somebody with a
network carries out, is sent what came back, and in the end returns or raises. Answers are judged by
`keyring.revocation`; every certificate of the chain below the anchor is asked about, each source in the order of the
policy until one answer is definite.
"""

from __future__ import annotations

import base64
import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from urllib.parse import quote

from cryptography import x509

from attls.errors import KeyringError, Reason
from attls.keyring import Identity, certificates
from attls.keyring.certificates import Signer
from attls.keyring.revocation import (
    REVOKED,
    Answer,
    Cache,
    HeldList,
    Level,
    Standing,
    crl_urls,
    decide,
    first_definite,
    is_list_of,
    judge_crl,
    judge_ocsp,
    ocsp_request,
    ocsp_urls,
    read_crl,
)
from attls.keyring.signatures import check_pair, sign_request
from attls.model import Revocation
from attls.policy import codes
from attls.tls.verification import RefusedError

LONGEST_GET = 255  # RFC 6960 appendix A.1: longer requests go by POST
NO_LIMIT_SECONDS = 60  # what a policy that sets no limit gets: the peer is waiting
NO_LIMIT_BYTES = 64 * 1024 * 1024
NO_LIMIT_PLACES = 256
NO_LIMIT_PLACES_IN_ALL = 1024

Reply = bytes | Answer
Inquiry = Generator["Question", Reply, None]


@dataclass(frozen=True, slots=True)
class Question:
    """One HTTP request: GET, or POST where there is a `body`; `proxy` is host and port.

    What takes longer than `seconds`, or is larger than `largest` bytes, is no answer.
    """

    url: str
    seconds: int
    largest: int
    body: bytes | None = None
    proxy: tuple[str, int] | None = None


class Inquiries:
    """What one policy says of revocation, and the answers and lists that are remembered under it.

    `lists` are those on the key ring (DER), `identity` is what requests are signed with, if any. `clock` returns the
    time of day with its zone. Raises KeyringError (428) when the identity's key does not fit the policy.
    """

    def __init__(
        self,
        settings: Revocation,
        *,
        lists: Iterable[bytes] = (),
        identity: Identity | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._answers = Cache(settings.ocsp_cache_size, each=settings.ocsp_cache_size_each)
        self._lists: OrderedDict[str, tuple[HeldList, datetime]] = OrderedDict()
        self._largest_list = settings.list_cache_largest or NO_LIMIT_BYTES
        self._most_places = settings.places_each or NO_LIMIT_PLACES
        self._most_places_of_all = settings.places_in_all or NO_LIMIT_PLACES_IN_ALL
        self._own_lists = [HeldList(read_crl(one)) for one in lists]
        self._signer: Signer | None = None
        if identity is not None:
            self._signer = Signer(
                certificates.load_certificate(identity.certificate), certificates.load_private_key(identity.private_key)
            )
            self._signer_chain = identity.chain
            check_pair(settings.ocsp_signer_algorithm, self._signer.certificate)

    def ask(self, chain: Sequence[bytes], staple: bytes = b"") -> Inquiry:
        """Find out about `chain` (DER, the peer's first, the anchor last); `staple` is an OCSP answer that came along.

        Raises RefusedError when policy does not let the connection go on.
        """
        left = self._most_places_of_all
        try:
            for below, (one, above) in enumerate(pairwise(chain)):
                certificate, issuer = certificates.load_certificate(one), certificates.load_certificate(above)
                answers: list[Answer] = []
                at_hand = self._at_hand(certificate, issuer)
                # A list on the ring may be a week old: what it lists is revoked, but for "good" the sources of the
                # policy are asked first.
                if any(answer.standing is Standing.REVOKED for answer in at_hand):
                    answers += at_hand
                elif staple and not below:
                    stapled = self._judge(staple, certificate, issuer)
                    # A doubtful one is as good as none: the sources can still be asked.
                    answers += [stapled] if first_definite([stapled]) else []
                for look in self._sources(certificate, issuer):
                    if first_definite(answers) is not None or not left:
                        break
                    left -= 1
                    answers.append((yield from look))
                if first_definite(answers) is None:
                    answers += at_hand
                if self._settings.ldap_servers and first_definite(answers) is None:
                    answers.append(
                        Answer(Standing.UNREACHABLE, "revocation lists in LDAP directories cannot be fetched")
                    )
                self._decide(certificate, answers)
        except KeyringError as error:
            word = "revoked" if error.code == REVOKED else "revocation-unknown"
            text = "a certificate of the peer is revoked"
            if error.code != REVOKED:
                text = "it cannot be told whether a certificate of the peer is revoked"
            raise RefusedError(Reason(error.code, word, text), str(error)) from error

    def about(self, certificate: bytes, issuer: bytes) -> Generator[Question, Reply, tuple[bytes, Answer]]:
        """Ask the responders about a certificate of our own (DER); return the answer (DER) to staple and what it says.

        The answer is empty unless it says good. A nonce is never sent: the answer is for others.
        """
        ours, above = certificates.load_certificate(certificate), certificates.load_certificate(issuer)
        found: list[Answer] = []
        for url in self._responders(ours, from_certificate=True):
            reply = yield self._question(url, ours, above, None)
            if isinstance(reply, Answer):
                found.append(reply)
                continue
            answer = self._judge(reply, ours, above)
            if answer.standing is Standing.GOOD:
                return reply, answer
            found.append(answer)
            if answer.standing is Standing.REVOKED:
                break
        if not found:
            return b"", Answer(Standing.ABSENT, "neither OcspUrl nor the certificate names a responder")
        return b"", Answer(found[-1].standing, "; ".join(one.reason for one in found))

    def _decide(self, certificate: x509.Certificate, answers: list[Answer]) -> None:
        try:
            decide(Level(self._settings.level), answers)
        except KeyringError as error:
            raise KeyringError(f"'{certificates.common_name(certificate)}': {error}", error.code) from error

    def _at_hand(self, certificate: x509.Certificate, issuer: x509.Certificate) -> list[Answer]:
        """Return what the lists on the ring say."""
        return [self._judge_list(certificate, issuer, one) for one in self._own_lists if is_list_of(one.crl, issuer)]

    def _responders(self, certificate: x509.Certificate, *, from_certificate: bool) -> Iterable[str]:
        settings = self._settings
        named = ocsp_urls(certificate)[: self._most_places] if from_certificate else []
        fixed = [settings.ocsp_url] if settings.ocsp_url is not None else []
        return dict.fromkeys(fixed + named if settings.ocsp_url_first else named + fixed)

    def _sources(
        self, certificate: x509.Certificate, issuer: x509.Certificate
    ) -> list[Generator[Question, Reply, Answer]]:
        settings = self._settings
        responders = self._responders(certificate, from_certificate=settings.ocsp_from_certificate)
        places = crl_urls(certificate)[: self._most_places] if settings.lists_by_http else []
        ocsp = [self._ask_responder(url, certificate, issuer) for url in responders]
        lists = [self._look_up(url, certificate, issuer) for url in dict.fromkeys(places)]
        return ocsp + lists if settings.ocsp_first else lists + ocsp

    def _ask_responder(
        self, url: str, certificate: x509.Certificate, issuer: x509.Certificate
    ) -> Generator[Question, Reply, Answer]:
        settings = self._settings
        about = (certificates.der(certificate), certificates.der(issuer))
        nonce = None
        if settings.ocsp_nonce or settings.ocsp_nonce_required:
            nonce = os.urandom(min(settings.ocsp_nonce_size, codes.LARGEST_NONCE))
        known = self._answers.get(url, about, self._clock()) if nonce is None else None
        if known is not None:
            return known
        reply = yield self._question(url, certificate, issuer, nonce)
        if isinstance(reply, Answer):
            # A responder that says "not found" is no list that does not exist: it does not do its work.
            return Answer(Standing.UNKNOWN, reply.reason) if reply.standing is Standing.ABSENT else reply
        answer = self._judge(reply, certificate, issuer, nonce)
        self._answers.put(url, about, answer)
        return answer

    def _question(
        self, url: str, certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes | None
    ) -> Question:
        settings = self._settings
        request = ocsp_request(certificate, issuer, nonce=nonce)
        if self._signer is not None:
            request = sign_request(request, self._signer, self._signer_chain, settings.ocsp_signer_algorithm)
        body: bytes | None = request
        place = url
        if settings.ocsp_by_get:
            get = f"{url.rstrip('/')}/{quote(base64.b64encode(request).decode(), safe='')}"
            if len(get) <= LONGEST_GET:
                place, body = get, None
        return Question(
            place,
            settings.ocsp_timeout or NO_LIMIT_SECONDS,
            settings.ocsp_maximum_size or NO_LIMIT_BYTES,
            body,
            (settings.ocsp_proxy, settings.ocsp_proxy_port) if settings.ocsp_proxy else None,
        )

    def _judge(
        self, reply: bytes, certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes | None = None
    ) -> Answer:
        settings = self._settings
        return judge_ocsp(
            reply,
            certificate,
            issuer,
            now=self._clock(),
            nonce=nonce,
            nonce_required=settings.ocsp_nonce_required,
            algorithms=settings.ocsp_algorithms,
        )

    def _judge_list(self, certificate: x509.Certificate, issuer: x509.Certificate, held: HeldList) -> Answer:
        return judge_crl(certificate, issuer, held, now=self._clock(), algorithms=self._settings.list_algorithms)

    def _look_up(
        self, url: str, certificate: x509.Certificate, issuer: x509.Certificate
    ) -> Generator[Question, Reply, Answer]:
        settings = self._settings
        found, until = self._lists.get(url, (None, datetime.min.replace(tzinfo=UTC)))
        if found is not None and self._clock() < until:
            self._lists.move_to_end(url)
            return self._judge_list(certificate, issuer, found)
        reply = yield Question(
            url,
            settings.http_timeout or NO_LIMIT_SECONDS,
            settings.http_maximum_size or NO_LIMIT_BYTES,
            None,
            (settings.http_proxy, settings.http_proxy_port) if settings.http_proxy else None,
        )
        if isinstance(reply, Answer):
            return reply
        try:
            held = HeldList(read_crl(reply))
        except KeyringError as error:
            return Answer(Standing.UNKNOWN, f"{url}: {error}")
        answer = self._judge_list(certificate, issuer, held)
        if answer.until is not None and len(reply) <= self._largest_list:
            self._keep(url, held, answer.until)
        return answer

    def _keep(self, url: str, held: HeldList, until: datetime) -> None:
        self._lists[url] = (held, until)
        self._lists.move_to_end(url)
        while len(self._lists) > self._settings.list_cache_size:
            self._lists.popitem(last=False)
