"""A generation: one policy with all its key rings, loaded aside as a whole, that is either in force or not at all.

Loading reads files and nothing else. Rings that belong to whoever makes the connection (`Keyring name` without an
owner) cannot be known beforehand; a worker asks for them when the first such user turns up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from attls import policy
from attls.errors import DaemonError, KeyringError
from attls.keyring import Keyring, Store, UserMap
from attls.model import Defaults, HandshakeRole, TlsSettings
from attls.policy import PolicySet, Rule

RingKey = tuple[str, str | None, str | None]


class GenerationError(DaemonError):
    """A policy that reads well but cannot be served; `problems` has one sentence per ring or rule."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class Generation:
    """What is in force: `number` counts up with each refresh, `rings` is keyed by `ring_key`.

    `users` turns client certificates into users; it is empty where no rule asks clients for certificates.
    The identifiers number group and environment actions by name and keep their numbers across refreshes; `groups` are
    the names in force. `loaded` is in seconds since the epoch.
    """

    number: int
    policy: PolicySet
    rings: Mapping[RingKey, Keyring]
    group_identifiers: Mapping[str, int]
    environment_identifiers: Mapping[str, int]
    groups: tuple[str, ...]
    loaded: float
    users: UserMap = field(default_factory=UserMap)


def belongs_to_connection_user(reference: str) -> bool:
    """Tell whether a policy's `Keyring` means a ring of whoever owns the connection, as a name without owner does."""
    return "/" not in reference


def ring_key(settings: TlsSettings) -> RingKey:
    """Return what tells one ring of a policy from another: its spelling and what opens it."""
    return settings.keyring, settings.keyring_password, settings.keyring_stash_file


def settings_in_use(rules: Iterable[Rule]) -> dict[TlsSettings, list[str]]:
    """Return each distinct TLS settings that some rule asks for, with the names of those rules."""
    found: dict[TlsSettings, list[str]] = {}
    known: dict[int, list[str]] = {}  # by identity: rules share settings, and hashing those takes long
    for rule in rules:
        settings = rule.verdict.settings
        if settings is not None:
            names = known.get(id(settings))
            if names is None:
                names = known[id(settings)] = found.setdefault(settings, [])
            names.append(rule.name)
    return found


def labels_in_use(settings: TlsSettings) -> set[str | None]:
    """Return the labels of the certificates whose keys `settings` use; None stands for the ring's default one."""
    labels: set[str | None] = {label for _, label in settings.server_sni}
    if settings.revocation is not None and settings.revocation.ocsp_signer is not None:
        labels.add(settings.revocation.ocsp_signer)  # it signs the questions about revocation
    if settings.role is not HandshakeRole.CLIENT and settings.server_certificate_labels:
        return labels | set(settings.server_certificate_labels)
    if settings.certificate_label == "":
        return labels
    return labels | {settings.certificate_label}


def with_code(error: Exception) -> str:
    """Return the sentence of `error`, with the return code that run books know where it has one."""
    return f"{error} (code {error.code})" if isinstance(error, KeyringError) else str(error)


def load(
    path: Path,
    keyrings: Path,
    *,
    defaults: Defaults,
    number: int,
    previous: Generation | None = None,
    datasets: Mapping[str, Path] | None = None,
) -> Generation:
    """Read the policy at `path` and every ring it names from the store `keyrings`.

    `datasets` says which file stands for an MVS data set.
    Raises PolicyError with all diagnostics, or GenerationError with a sentence for each ring that cannot be read.
    """
    try:
        rules = policy.load(path, defaults, datasets=datasets)
    except OSError as error:
        raise GenerationError([f"cannot read the policy {path}: {error.strerror}"]) from error
    generation, problems = _with_rings(rules, keyrings, number=number, previous=previous)
    if problems:
        raise GenerationError(problems)
    return generation


def renew(previous: Generation, keyrings: Path, *, number: int) -> tuple[Generation, tuple[str, ...]]:
    """Read the rings again and keep the policy: somebody may be in the middle of editing its file.

    A ring that cannot be read stays as it was, so that it does not hold up the others; there is a sentence for each.
    """
    then, problems = _with_rings(previous.policy, keyrings, number=number, previous=previous)
    return replace(then, rings={**previous.rings, **then.rings}), problems


def _with_rings(
    rules: PolicySet, keyrings: Path, *, number: int, previous: Generation | None
) -> tuple[Generation, tuple[str, ...]]:
    # The generation with the rings that can be read, and what is wrong with the others.
    store = Store(keyrings)
    rings: dict[RingKey, Keyring] = {}
    labels: dict[RingKey, set[str | None]] = {}
    problems: dict[RingKey, str] = {}
    in_use = settings_in_use(rules.rules)
    for settings, names in in_use.items():
        key = ring_key(settings)
        if belongs_to_connection_user(settings.keyring):
            continue
        labels.setdefault(key, set()).update(labels_in_use(settings))
        if key in rings or key in problems:
            continue
        try:
            rings[key] = store.ring(
                settings.keyring, password=settings.keyring_password, stash_file=settings.keyring_stash_file
            )
        except KeyringError as error:
            problems[key] = f"rule {names[0]}: {with_code(error)}"
        except OSError as error:
            problems[key] = f"rule {names[0]}: cannot read the ring {settings.keyring}: {error}"
    sentences = list(problems.values())
    users = UserMap()
    if any(settings.role is HandshakeRole.SERVER_WITH_CLIENT_AUTH for settings in in_use):
        try:
            users = store.user_map()
        except (KeyringError, OSError) as error:
            sentences.append(f"the map from certificates to users cannot be read: {error}")
            users = previous.users if previous else users
    verdicts = [rule.verdict for rule in rules.rules]
    groups = tuple(dict.fromkeys(verdict.group for verdict in verdicts if verdict.group))
    environments = dict.fromkeys(verdict.environment for verdict in verdicts if verdict.environment)
    generation = Generation(
        number,
        rules,
        # A key that nobody presents has no business in a process that talks to the network.
        {key: ring.narrowed(labels[key]) for key, ring in rings.items()},
        group_identifiers=_numbered(groups, previous.group_identifiers if previous else {}),
        environment_identifiers=_numbered(environments, previous.environment_identifiers if previous else {}),
        groups=groups,
        loaded=time.time(),
        users=users,
    )
    return generation, tuple(sentences)


def _numbered(names: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """Give `names` numbers from 1 on; a name that ever had one keeps it, so that log lines stay comparable."""
    numbers = dict(before)
    for name in names:
        numbers.setdefault(name, len(numbers) + 1)
    return numbers
