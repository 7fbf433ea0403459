"""Taking TCP connections off this host and finding who owns them: the room's door.

`nft` steers connections to us (render, check, apply, remove), `Routes` turns packets round, `open_listeners`,
`intercepted` and the two `dial_` functions are the sockets' side of it, and `Owners` tells whose connection it is.
"""

from attls.intercept import nft
from attls.intercept.marks import MARKS, Marks
from attls.intercept.owner import Owners, local_uids
from attls.intercept.routes import Routes
from attls.intercept.sockets import (
    Intercepted,
    Listeners,
    WorkerListeners,
    dial_inbound,
    dial_outbound,
    intercepted,
    open_listeners,
)

__all__ = [
    "MARKS",
    "Intercepted",
    "Listeners",
    "Marks",
    "Owners",
    "Routes",
    "WorkerListeners",
    "dial_inbound",
    "dial_outbound",
    "intercepted",
    "local_uids",
    "nft",
    "open_listeners",
]
