"""The relay carries one connection from birth to close: a lifecycle table, tight byte loops, one reactor per worker.

`Reactor` is the door; `Controlled` is a connection whose program decides when TLS starts and ends.
"""

from attls.relay.controlled import Controlled, NotEstablishedError
from attls.relay.reactor import Reactor
from attls.relay.secure import crossing

BYTE_PATH = crossing.name  # by which way this process moves bytes: compiled, direct or public

__all__ = ["BYTE_PATH", "Controlled", "NotEstablishedError", "Reactor"]
