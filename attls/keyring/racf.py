"""What else a z/OS procedure about certificates says: RDEFINE, RALTER, RDELETE and PERMIT of two classes.

DIGTCRIT holds what criteria of name filters stand for. RDATALIB says who may read which ring: a permission for
`owner.ring.LST` is a grant, which counts where the store's settings are strict. SETROPTS has nothing to refresh.
"""

from __future__ import annotations

from attls.errors import KeyringError
from attls.keyring import names
from attls.keyring.grants import Access
from attls.keyring.opening import Store
from attls.keyring.tso import CommandError, Operand, Operands

PASSED_OVER = frozenset({"SETROPTS", "SETR"})
COMMANDS = {
    **dict.fromkeys(("RDEFINE", "RDEF"), "RDEFINE"),
    **dict.fromkeys(("RALTER", "RALT"), "RALTER"),
    **dict.fromkeys(("RDELETE", "RDEL"), "RDELETE"),
    **dict.fromkeys(("PERMIT", "PE"), "PERMIT"),
}
"""Commands by the names and abbreviations that TSO knows."""

_VIRTUAL_RING = "IRR_VIRTUAL_LISTRING"


def run(store: Store, operands: list[Operand]) -> str:
    """Carry out one command and return what it prints.

    Raises CommandError for what cannot be understood, KeyringError for what cannot be done; then nothing was changed.
    """
    command = COMMANDS[operands[0].keyword]
    if command == "PERMIT":
        return _permit(store, operands[1:])
    if len(operands) < 3:
        raise CommandError(f"{command} takes a class and a profile, e.g. {command} DIGTCRIT APPLID=PAYROLL")
    name, profile, rest = operands[1].keyword, _text(operands[2]), operands[3:]
    if name == "DIGTCRIT":
        return _criterion(store, command, profile, rest)
    if name == "RDATALIB":
        return _ring_profile(store, command, profile, rest)
    raise CommandError(f"class {name} means nothing here; DIGTCRIT and RDATALIB do")


def _text(operand: Operand) -> str:
    # A profile may be written as it is or in quotes, or with others in parentheses, which nothing here needs.
    if operand.operands is not None:
        raise CommandError(f"one profile at a time, please, not {operand.text}(…)")
    return operand.text


def _criterion(store: Store, command: str, profile: str, rest: list[Operand]) -> str:
    given = Operands(rest, "APPLDATA UACC OWNER AUDIT")
    if command == "RDELETE":
        store.set_criterion(profile, None)
        return f"Criteria {profile} deleted."
    user = names.check_owner(given.required("APPLDATA"))
    store.set_criterion(profile, user)
    return f"Criteria {profile} stands for user {user}."


def _ring_profile(store: Store, command: str, profile: str, rest: list[Operand]) -> str:
    given = Operands(rest, "UACC OWNER AUDIT")
    access = (given.value("UACC") or "NONE").upper()
    if access != "NONE":
        raise KeyringError(f"UACC({access}) would let everybody in; here each user is permitted, with PERMIT")
    rings = _rings(store, profile)
    if command == "RDELETE":
        dropped = [one for one in store.grants() if one.ring in rings]
        for one in dropped:
            store.set_grant(one.ring, one.user, None)
        return f"Profile {profile} deleted."
    return f"Profile {profile} needs no definition; PERMIT says who may read {' and '.join(rings)}."


def _permit(store: Store, operands: list[Operand]) -> str:
    if not operands:
        raise CommandError("PERMIT takes a profile, e.g. PERMIT START1.TN3270.LST CLASS(RDATALIB) ID(U1) ACCESS(READ)")
    profile, given = _text(operands[0]), Operands(operands[1:], "CLASS ID ACCESS DELETE GENERIC")
    if given.required("CLASS").upper() != "RDATALIB":
        raise CommandError("PERMIT counts for CLASS(RDATALIB) only")
    users = [names.check_owner(one.text) for one in (given.get("ID") or Operand("ID")).operands or ()]
    if not users:
        raise CommandError("ID(…) is missing")
    access = (given.value("ACCESS") or "READ").upper()
    if access != "NONE" and access not in Access.__members__:
        raise CommandError(f"ACCESS takes NONE, {', '.join(Access.__members__)}, not {access}")
    level = None if given.has("DELETE") or access == "NONE" else Access[access]
    rings = _rings(store, profile)
    with store.writing():
        for ring in rings:
            for user in users:
                store.set_grant(ring, user, level)
    what = f"may read ({access})" if level else "may no longer read"
    return f"{', '.join(users)} {what} {' and '.join(rings)}."


def _rings(store: Store, profile: str) -> list[str]:
    """Return the rings that `owner.ring.LST` is about; RACF folds ring names here, so there may be several."""
    owner, _, rest = profile.partition(".")
    name, _, purpose = rest.rpartition(".")
    if not name or purpose.upper() != "LST":
        raise CommandError(f"{profile} is not like OWNER.RING.LST; who may change rings is up to file permissions")
    owner = names.check_owner(owner)
    if name.upper() == _VIRTUAL_RING:
        return [{names.CERTAUTH: "*AUTH*/*", names.SITE: "*SITE*/*"}.get(owner, f"{owner}/*")]
    alike = [ring.name for ring in store.rings(owner) if ring.name.upper() == name.upper()]
    return [f"{owner}/{one}" for one in alike or [names.check_ring_name(name)]]
