"""The relay carries one connection from birth to close: a lifecycle table, tight byte loops, one reactor per worker.

`Reactor` is the door.
"""

from attls.relay.reactor import Reactor

__all__ = ["Reactor"]
