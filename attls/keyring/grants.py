"""Who may read which ring, where the store's settings ask for explicit grants (`grants = true`).

Without that setting whoever loads the policy decides, and file permissions. With it the rules are those of RACF's
RDATALIB class (R_datalib, ring-specific checking): READ opens a ring and hands out one's own private keys, UPDATE also
those of other users, CONTROL also those of CERTAUTH and SITE. The owner of a ring has READ without a grant.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from attls.keyring import names


class Access(enum.IntEnum):
    """How far a grant goes; each level includes those below it."""

    READ = 1
    UPDATE = 2
    CONTROL = 3


@dataclass(frozen=True, slots=True)
class Grant:
    """`user` (canonical) may read `ring`: `OWNER/RING`, `OWNER/*` for all of an owner, `*AUTH*/*` or `*SITE*/*`."""

    ring: str
    user: str
    access: Access


def check_reference(reference: str) -> str:
    """Return the canonical spelling of what a grant can be for. Raises KeyringError when it is none."""
    if reference.upper() in {"*AUTH*/*", "*SITE*/*"}:
        return reference.upper()
    owner, slash, name = reference.partition("/")
    if slash and name == "*":
        return f"{names.check_owner(owner)}/*"
    return "/".join(names.split_ring(reference))


def access(grants: Iterable[Grant], *, user: str, ring: str) -> Access | None:
    """Return how far `user` may read `ring` (both canonical), None for not at all."""
    owner = ring.partition("/")[0]
    found = [one.access for one in grants if one.user == user and one.ring in {ring, f"{owner}/*"}]
    if owner == user:
        found.append(Access.READ)
    return max(found, default=None)


def needed_for_key(*, user: str, certificate_owner: str) -> Access:
    """Return the access that hands the private key of a certificate out to `user` (both canonical)."""
    if certificate_owner == user:
        return Access.READ
    return Access.CONTROL if certificate_owner in {names.CERTAUTH, names.SITE} else Access.UPDATE
