"""An aware server: it lets in whoever AT-TLS says is at the other end, without a password.

    python -m attls.examples.login 0.0.0.0 4000

Its policy is an ordinary one (ServerWithClientAuth, no ApplicationControlled); the handshake is over before the first
byte can be read. Only SAFCheck guarantees that the user exists, so nothing less is accepted.
"""

from __future__ import annotations

import hashlib
import socket

from attls import client
from attls.client import AttlsControlError, PolicyStatus, SecurityType
from attls.examples.serving import Lines, run


def talk(sock: socket.socket) -> None:
    """Say who is there, or refuse."""
    lines = Lines(sock)
    try:
        status = client.query(sock, certificate=True)
    except AttlsControlError as error:
        lines.write(f"refused: {error}")
        return
    if status.policy is not PolicyStatus.ENABLED or not status.is_secure:
        lines.write("refused: this port is not protected by AT-TLS")
    elif status.security_type is not SecurityType.SRV_CA_SAFCHK or status.user is None:
        lines.write("refused: the policy does not check who you are (ClientAuthType SAFCheck)")
    else:
        fingerprint = hashlib.sha256(status.certificate or b"").hexdigest()[:16]
        lines.write(f"welcome {status.user}, over {status.protocol} {status.cipher}, certificate {fingerprint}")
        while True:
            lines.write(f"{status.user}: {lines.read()}")


if __name__ == "__main__":
    run(talk)
