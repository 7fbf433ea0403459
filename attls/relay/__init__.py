"""The relay carries one connection from birth to close: a lifecycle table, tight byte loops, one reactor per worker.

`Reactor` is the door; `Controlled` is a connection whose program decides when TLS starts and ends.
"""

from attls.relay.controlled import Controlled, NotEstablishedError
from attls.relay.reactor import Reactor

__all__ = ["Controlled", "NotEstablishedError", "Reactor"]
