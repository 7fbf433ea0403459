"""The names of the keyring room: owners, labels, ring names, and the file names they become.

Rule of the file: a name that passed one of the `check_…` functions is safe to show on a terminal and, once through
`file_name`, safe to use as one path component. Owners compare without case, as on z/OS; labels and ring names do not.
"""

from __future__ import annotations

import shlex
import urllib.parse

from attls.errors import KeyringError

CERTAUTH = "CERTAUTH"
SITE = "SITE"
# RACF keeps CERTAUTH and SITE under two reserved user ids; policies and procedures may use either spelling.
_RESERVED = {"IRRCERTA": CERTAUTH, "IRRSITEC": SITE}
_LONGEST_LABEL = 64
_LONGEST_RING_NAME = 237
_LONGEST_OWNER = 64
# A file name may have 255 bytes; the longest thing we append is the key's identifier and ".key".
_LONGEST_FILE_NAME = 220


class InvalidNameError(KeyringError):
    """A name that cannot be an owner, a label or a ring."""


class MissingError(KeyringError):
    """What was named is not in the store."""


def fold_owner(owner: str) -> str:
    """Return the one spelling under which `owner` is kept and compared."""
    folded = owner.upper()
    return _RESERVED.get(folded, folded)


def check_owner(owner: str) -> str:
    """Return the canonical spelling of `owner` (a user name, CERTAUTH or SITE).

    Raises KeyringError when it could not be a user name.
    """
    if not owner or len(owner) > _LONGEST_OWNER:
        raise InvalidNameError(f"an owner has 1 to {_LONGEST_OWNER} characters, {_shown(owner)} does not")
    if not (owner.isascii() and owner.isprintable()) or set(owner) & set('/* "') or owner.startswith((".", "-")):
        raise InvalidNameError(f"owner {_shown(owner)} is no user name; give a user name, CERTAUTH or SITE")
    return fold_owner(owner)


def check_label(label: str) -> str:
    """Return `label` when it can name a certificate: 1 to 64 printable characters without blanks at the ends."""
    return _check("label", label, _LONGEST_LABEL)


def check_ring_name(name: str) -> str:
    """Return `name` when it can name a ring: 1 to 237 printable characters without `/` and `*`."""
    if set(name) & set("/*"):
        raise InvalidNameError(f"ring name {_shown(name)} must not contain '/' or '*'")
    return _check("ring name", name, _LONGEST_RING_NAME)


def _check(kind: str, name: str, longest: int) -> str:
    if not 0 < len(name) <= longest:
        raise InvalidNameError(f"a {kind} has 1 to {longest} characters, {_shown(name)} has {len(name)}")
    if not name.isprintable():
        raise InvalidNameError(f"{kind} {_shown(name)} contains characters that cannot be printed")
    if name != name.strip():
        raise InvalidNameError(f"{kind} {_shown(name)} begins or ends with a blank")
    if len(file_name(name)) > _LONGEST_FILE_NAME:
        raise InvalidNameError(
            f"{kind} {_shown(name)} is too long to be kept as a file name; use fewer special characters"
        )
    return name


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")


def file_name(name: str) -> str:
    """Encode `name` as one path component: letters, digits and `-_~` stay, dots stay except a leading one."""
    encoded = urllib.parse.quote(name, safe="")
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded


def from_file_name(text: str) -> str:
    """Undo `file_name`."""
    return urllib.parse.unquote(text)


def for_shell(text: str) -> str:
    """Write a name or path as one word of a shell: errors hold commands that people paste.

    A label may come from the common name of a foreign certificate, whose maker would like to have a command run.
    """
    return shlex.quote(text)


def options(owner: str, label: str) -> str:
    """Write the options that name a certificate, ready to paste."""
    return f"--owner {for_shell(owner)} --label {for_shell(label)}"


def split_ring(reference: str) -> tuple[str, str]:
    """Split `USER/RING` into canonical owner and ring name.

    Raises KeyringError when there is no `/` or one of the names is impossible.
    """
    owner, slash, name = reference.partition("/")
    if not slash:
        raise InvalidNameError(f"{_shown(reference)} names no ring; write USER/RING")
    return check_owner(owner), check_ring_name(name)
