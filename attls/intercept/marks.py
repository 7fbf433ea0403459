"""The packet marks by which the kernel's steering, our routes and our sockets recognise each other.

All of them live in six bits, so that marks of other software (Kubernetes uses 0xc000, Tailscale 0xff0000, Calico the
upper half) survive beside ours. Setting a mark on a socket needs CAP_NET_ADMIN, so an ordinary program cannot pretend.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """Mark values within `mask`; the first two are set on our sockets, the others only inside the kernel.

    `network`: our socket towards the real destination or peer. `program`: our socket towards a local program, and
    every packet of that connection. `answer`: a program's packet to such a socket, routed back to this host.
    `outbound` and `inbound`: connections that were steered to us. `table` and `priority`: routing table number of the
    way back, and the priority of the routing rule that leads there.
    """

    mask: int = 0x3F00
    network: int = 0x2100
    program: int = 0x2200
    answer: int = 0x2300
    outbound: int = 0x2400
    inbound: int = 0x2500
    table: int = 2551
    priority: int = 77


MARKS = Marks()
