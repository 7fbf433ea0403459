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
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from urllib.parse import quote

from cryptography import x509

from attls.errors import KeyringError, Reason
from attls.keyring import certificates
from attls.keyring.revocation import (
    REVOKED,
    Answer,
    Cache,
    Level,
    Standing,
    crl_urls,
    decide,
    first_definite,
    judge_crl,
    judge_ocsp,
    ocsp_request,
    ocsp_urls,
    read_crl,
)
from attls.model import Revocation
from attls.tls.verification import RefusedError

LONGEST_GET = 255  # RFC 6960 appendix A.1: longer requests go by POST
NO_LIMIT_SECONDS = 60  # what a policy that sets no limit gets: the peer is waiting
NO_LIMIT_BYTES = 64 * 1024 * 1024
_LARGEST_NONCE = 128  # RFC 9654

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

    `clock` returns the time of day with its zone.
    """

    def __init__(self, settings: Revocation, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings = settings
        self._clock = clock
        extras = dict(settings.extras)
        self._answers = Cache(int(extras.get("OcspClientCacheSize", 256)))
        self._lists: OrderedDict[str, tuple[x509.CertificateRevocationList, datetime]] = OrderedDict()
        self._most_lists = int(extras.get("HttpCdpCacheSize", 32))
        self._largest_list = int(extras.get("HttpCdpCacheEntryMaxsize", 0)) or NO_LIMIT_BYTES
        self._most_places = int(extras.get("MaxSrcRevExtLocValues", 10)) or 256
        self._most_places_of_all = int(extras.get("MaxValidRevExtLocValues", 100)) or 1024

    def ask(self, chain: Sequence[bytes], staple: bytes = b"") -> Inquiry:
        """Find out about `chain` (DER, the peer's first, the anchor last); `staple` is an OCSP answer that came along.

        Raises RefusedError when policy does not let the connection go on.
        """
        budget = self._most_places_of_all
        try:
            for below, (one, above) in enumerate(pairwise(chain)):
                certificate, issuer = certificates.load_certificate(one), certificates.load_certificate(above)
                answers: list[Answer] = []
                if staple and not below:
                    stapled = judge_ocsp(staple, certificate, issuer, now=self._clock())
                    # A doubtful one is as good as none: the sources can still be asked.
                    answers += [stapled] if first_definite([stapled]) else []
                for look in self._sources(certificate, issuer):
                    if first_definite(answers) is not None or not budget:
                        break
                    budget -= 1
                    answers.append((yield from look))
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

    def _decide(self, certificate: x509.Certificate, answers: list[Answer]) -> None:
        try:
            decide(Level(self._settings.level), answers)
        except KeyringError as error:
            raise KeyringError(f"'{certificates.common_name(certificate)}': {error}", error.code) from error

    def _sources(
        self, certificate: x509.Certificate, issuer: x509.Certificate
    ) -> list[Generator[Question, Reply, Answer]]:
        settings = self._settings
        named = ocsp_urls(certificate)[: self._most_places] if settings.ocsp_from_certificate else []
        fixed = [settings.ocsp_url] if settings.ocsp_url is not None else []
        responders = fixed + named if settings.ocsp_url_first else named + fixed
        places = crl_urls(certificate)[: self._most_places] if settings.lists_by_http else []
        ocsp = [self._ask_responder(url, certificate, issuer) for url in dict.fromkeys(responders)]
        lists = [self._look_up(url, certificate, issuer) for url in dict.fromkeys(places)]
        return ocsp + lists if settings.ocsp_first else lists + ocsp

    def _ask_responder(
        self, url: str, certificate: x509.Certificate, issuer: x509.Certificate
    ) -> Generator[Question, Reply, Answer]:
        settings = self._settings
        key = (url, certificates.der(certificate), certificates.der(issuer))
        nonce = os.urandom(min(settings.ocsp_nonce_size, _LARGEST_NONCE)) if settings.ocsp_nonce else None
        known = self._answers.get(key, self._clock()) if nonce is None else None
        if known is not None:
            return known
        request = ocsp_request(certificate, issuer, nonce=nonce)
        body: bytes | None = request
        place = url
        if settings.ocsp_by_get:
            get = f"{url.rstrip('/')}/{quote(base64.b64encode(request).decode(), safe='')}"
            if len(get) <= LONGEST_GET:
                place, body = get, None
        reply = yield Question(
            place,
            settings.ocsp_timeout or NO_LIMIT_SECONDS,
            settings.ocsp_maximum_size or NO_LIMIT_BYTES,
            body,
            (settings.ocsp_proxy, settings.ocsp_proxy_port) if settings.ocsp_proxy else None,
        )
        if isinstance(reply, Answer):
            # A responder that says "not found" is no list that does not exist: it does not do its work.
            return Answer(Standing.UNKNOWN, reply.reason) if reply.standing is Standing.ABSENT else reply
        answer = judge_ocsp(
            reply,
            certificate,
            issuer,
            now=self._clock(),
            nonce=nonce,
            nonce_required=settings.ocsp_nonce_required,
        )
        self._answers.put(key, answer, self._clock())
        return answer

    def _look_up(
        self, url: str, certificate: x509.Certificate, issuer: x509.Certificate
    ) -> Generator[Question, Reply, Answer]:
        settings = self._settings
        found, until = self._lists.get(url, (None, datetime.min.replace(tzinfo=UTC)))
        if found is not None and self._clock() < until:
            self._lists.move_to_end(url)
            return judge_crl(certificate, issuer, found, now=self._clock())
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
            crl = read_crl(reply)
        except KeyringError as error:
            return Answer(Standing.UNKNOWN, f"{url}: {error}")
        answer = judge_crl(certificate, issuer, crl, now=self._clock())
        if answer.until is not None and len(reply) <= self._largest_list:
            self._keep(url, crl, answer.until)
        return answer

    def _keep(self, url: str, crl: x509.CertificateRevocationList, until: datetime) -> None:
        self._lists[url] = (crl, until)
        self._lists.move_to_end(url)
        while len(self._lists) > self._most_lists:
            self._lists.popitem(last=False)
