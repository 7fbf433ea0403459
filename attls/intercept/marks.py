"""The packet marks by which the kernel's steering, our routes and our sockets recognise each other.

All of them live in six bits, so that marks of other software (Kubernetes uses 0xc000, Tailscale 0xff0000, Calico the
upper half) survive beside ours. Setting a mark on a socket needs CAP_NET_ADMIN, so an ordinary program cannot pretend.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """Mark values within `mask`. On our sockets: `network`, `program` and `outbound`; on packets and connections: all.

    `network`: our socket towards the real destination or peer. `program`: our socket towards a local program, and that
    connection. `outbound`: our end of a local program's steered connection, and that connection. `inbound`: a steered
    connection to a local program. `home`: a packet that is turned round to this host. `table` and `priority`: number
    of the routing table that does so, and priority of the routing rule that leads there.
    """

    mask: int = 0x3F00
    network: int = 0x2100
    program: int = 0x2200
    home: int = 0x2300
    outbound: int = 0x2400
    inbound: int = 0x2500
    table: int = 2551
    priority: int = 77


MARKS = Marks()
