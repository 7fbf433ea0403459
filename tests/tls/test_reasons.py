"""What the peer's alerts are called, whatever the TLS library calls them."""

from __future__ import annotations

import pytest

from attls.model import HandshakeRole
from attls.tls import EngineError, Environment, WantReadError
from tests.relay.street import ring, settings


@pytest.mark.parametrize(
    ("alert", "code", "word"),
    [(40, 402, "handshake-refused"), (42, 414, "refused-certificate"), (44, 431, "refused-revoked"),
     (45, 401, "refused-dates"), (48, 435, "refused-ca"), (70, 412, "no-protocol"), (71, 402, "handshake-refused"),
     (80, 438, "peer-internal-error"), (112, 447, "unrecognized-name"), (116, 403, "certificate-required"),
     (10, 410, "protocol")],
)  # fmt: skip
def test_an_alert_of_the_peer_has_its_own_reason(alert: int, code: int, word: str) -> None:
    """By number (RFC 8446 section 6.2), so that nothing depends on words that change between versions."""
    environment = Environment(settings(HandshakeRole.CLIENT), ring())
    engine = environment.engine(("192.0.2.1", 443), 0.0)
    with pytest.raises(WantReadError):
        engine.do_handshake()
    engine.bio_write(bytes((21, 3, 3, 0, 2, 2, alert)))
    with pytest.raises(EngineError) as caught:
        engine.do_handshake()
    reason, _ = environment.explain(engine, caught.value)
    assert (code, word) == (reason.code, reason.word)
