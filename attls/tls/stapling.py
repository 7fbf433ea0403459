"""What a server staples: the OCSP answers about its own certificates, fetched ahead and kept until they end.

No I/O happens here. `Staples.renewal` is an inquiry that somebody with a network carries out when `due`; handshakes
take what is there at that moment and never wait. An answer is renewed in the middle of its life, so that a responder
may be away for the other half; one that ended is not handed out any more, and neither is one that does not say good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta

from attls.keyring import certificates
from attls.keyring.revocation import Answer
from attls.tls.inquiry import Inquiries, Question, Reply

AGAIN = timedelta(minutes=1)
"""How long after a failure the responder is asked again; doubled each time."""
RARELY = timedelta(hours=1)
"""The longest time between two attempts after failures, and how long an answer without end is handed out."""
SOONEST = timedelta(seconds=10)
"""No answer, however short its life, is renewed more often."""

_log = logging.getLogger("attls.stapling")


class Staples:
    """The answers about the certificates of one environment, `issuers` by certificate (both DER), under one policy.

    `name` is how log lines call the key ring. `clock` returns the time of day with its zone.
    """

    def __init__(
        self,
        name: str,
        issuers: Mapping[bytes, bytes],
        inquiries: Inquiries,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._name = name
        self._issuers = issuers
        self._inquiries = inquiries
        self._clock = clock
        self._answers: dict[bytes, tuple[bytes, datetime]] = {}
        self._failures: dict[bytes, int] = {}
        self._due: dict[bytes, datetime] = dict.fromkeys(issuers, clock())

    def of(self, certificate: bytes) -> bytes:
        """Return what to staple beside `certificate` (DER), empty for nothing."""
        answer, until = self._answers.get(certificate, (b"", None))
        return answer if until is not None and self._clock() < until else b""

    def due_in(self) -> float:
        """Return after how many seconds there is something to renew; 0 for now."""
        return max(0.0, (min(self._due.values()) - self._clock()).total_seconds())

    def renewal(self) -> Generator[Question, Reply, None]:
        """Ask about each certificate whose turn it is."""
        now = self._clock()
        for certificate in [one for one, due in self._due.items() if due <= now]:
            answer, said = yield from self._inquiries.about(certificate, self._issuers[certificate])
            self._keep(certificate, answer, said)

    def _keep(self, certificate: bytes, answer: bytes, said: Answer) -> None:
        now = self._clock()
        what = f"'{certificates.common_name(certificates.load_certificate(certificate))}' of {self._name}"
        if answer:
            until = said.until or now + RARELY
            self._answers[certificate] = (answer, until)
            self._due[certificate] = now + max((until - now) / 2, SOONEST)
            if self._failures.pop(certificate, 0):
                _log.info("stapling works again for %s", what)
            return
        failures = self._failures[certificate] = self._failures.get(certificate, 0) + 1
        wait = min(AGAIN * 2 ** min(failures - 1, 10), RARELY)
        self._due[certificate] = now + wait
        left = "the answer at hand is still good" if self.of(certificate) else "nothing is stapled meanwhile"
        _log.warning(
            "no OCSP answer to staple for %s (%s); %s, next attempt in %d s",
            what,
            said.reason,
            left,
            wait.total_seconds(),
        )
