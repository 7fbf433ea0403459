"""Names to objects: statements are checked against the vocabulary, references followed, and rules put in order.

Three passes over a whole policy, however many files it came from, so that all errors are reported together:

1. every block is read by the rows of its statement (`_read_block`), wherever it stands;
2. every reference is looked up, and every statement is asked for what it must have;
3. if nothing was wrong, rules are built: conditions merged, and the settings of connection over environment over
   group over default worked out once for each combination of actions that a rule names.

Where a block is not closed, the statements that only make sense outside it are read as if it were.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from attls.model import (
    AddressRange,
    ClientAuthType,
    Conditions,
    Defaults,
    Demand,
    Direction,
    HandshakeRole,
    PortRange,
    Protocol,
    Revocation,
    TimeCondition,
    TlsSettings,
    Verdict,
)
from attls.policy import codes, envfile, language, values
from attls.policy.language import Kind, Parameter, Value
from attls.policy.limits import limits
from attls.policy.rules import Action, Rule
from attls.policy.text import Findings, Statement

# Both cipher parameters write one list, in the order in which their lines stand.
_SAME_LIST = {"V3CipherSuites4Char": "V3CipherSuites"}

PROTOCOLS = {
    "SSLv2": Protocol.SSLV2,
    "SSLv3": Protocol.SSLV3,
    "TLSv1": Protocol.TLSV1,
    "TLSv1.1": Protocol.TLSV1_1,
    "TLSv1.2": Protocol.TLSV1_2,
    "TLSv1.3": Protocol.TLSV1_3,
}

_DIRECTIONS = {
    "Inbound": frozenset({Direction.INBOUND}),
    "Outbound": frozenset({Direction.OUTBOUND}),
    "Both": frozenset({Direction.INBOUND, Direction.OUTBOUND}),
}

_CODES = (Kind.V2_CIPHERS, Kind.CIPHERS, Kind.CIPHERS_4, Kind.GROUPS, Kind.CLIENT_GROUPS, Kind.PAIRS)

_EXTENDED_MASTER_SECRET = {"Off": Demand.OFF, "On": Demand.OPTIONAL, "Required": Demand.REQUIRED}

ACTIONS = ("TTLSGroupAction", "TTLSEnvironmentAction", "TTLSConnectionAction")


class Block:
    """One block as the vocabulary reads it: `values` by parameter, nested blocks and references by slot."""

    __slots__ = ("coded", "lists", "name", "nested", "node", "replaced", "statement", "values")

    def __init__(self, statement: language.Statement, node: Statement, name: str | None) -> None:
        self.statement = statement
        self.node = node
        self.name = name
        self.values: dict[str, object] = {}
        self.lists: dict[str, dict[object, None]] = {}  # values that may be coded often, while they are read
        self.coded: dict[str, Statement] = {}  # where each parameter was last coded, well or badly
        self.nested: dict[str, list[Block | tuple[Parameter, Statement]]] = {}
        self.replaced: Block | None = None  # the earlier definition of the same name


class Suggestions:
    """Finds near names for "did you mean", within a budget: a file of nothing but mistakes must not take minutes."""

    def __init__(self, comparisons: int = 20000) -> None:
        self._left = comparisons

    def near(self, word: str, candidates: Iterable[str]) -> str | None:
        """Return a hint naming the candidate nearest to `word`, or None."""
        if len(word) > 64 or self._left <= 0:
            return None
        known: dict[str, str] = {}
        for candidate in candidates:
            known.setdefault(candidate.lower(), candidate)
            self._left -= 1
            if self._left <= 0:
                break
        found = [word.lower().removesuffix(".0")]  # TLSv1.0, as everybody else calls it
        if found[0] not in known:
            found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
        return f"did you mean '{known[found[0]]}'?" if found else None


class Resolver:
    """Reads the statements of a policy file by file, then builds its rules."""

    def __init__(self, findings: Findings, defaults: Defaults) -> None:
        self.findings = findings
        self.defaults = defaults
        self.blocks: dict[str, dict[str, Block]] = {name: {} for name in language.STATEMENTS}
        self.referenced: set[tuple[str, str]] = set()
        self._every_block: list[Block] = []
        self._limited: set[tuple[Statement, str]] = set()
        self._suggestions = Suggestions()
        self._actions: dict[tuple[str, str], dict[str, Value]] = {}
        self._addresses: dict[tuple[str, str], tuple[AddressRange, ...]] = {}
        self._ports: dict[tuple[str, str], tuple[PortRange, ...]] = {}
        self._verdicts: dict[tuple[str | None, str | None, str | None], tuple[bool, int, TlsSettings | None]] = {}

    # Pass 1: statements by the vocabulary.

    def read(self, statements: list[Statement]) -> None:
        """Read the statements of one file; agent lines have been taken out before."""
        waiting = list(reversed(statements))
        while waiting:
            node = waiting.pop()
            statement = language.BY_KEYWORD.get(node.keyword.lower())
            if node.keyword == "":
                continue  # reported where the brace stands
            if statement is None:
                self._unknown_at_file_level(node)
                continue
            if node.body is None:
                self.findings.error(
                    node, "missing-brace", f"{statement.name} must be followed by a line with '{{'", hint="add the line"
                )
                continue
            name = self._name_of(node, statement)
            block = self._read_block(node, statement, name, waiting)
            if name is None:
                continue
            earlier = self.blocks[statement.name].get(name)
            if earlier is not None:
                block.replaced = earlier
                self.findings.warning(
                    node,
                    "duplicate-name",
                    f"{statement.name} '{name}' is defined twice: at {_place(earlier.node)} and here; this one counts",
                    word=1,
                )
            self.blocks[statement.name][name] = block

    def _name_of(self, node: Statement, statement: language.Statement) -> str | None:
        if not node.words:
            self.findings.error(
                node, "missing-name", f"{statement.name} needs a name here: only a block inside another may lack one"
            )
            return None
        try:
            values.check_name(node.words[0], statement.name)
        except values.BadValue as bad:
            self.findings.error(node, bad.code, bad.message, word=1)
        return node.words[0]

    def _read_block(
        self, node: Statement, statement: language.Statement, name: str | None, waiting: list[Statement]
    ) -> Block:
        block = Block(statement, node, name)
        by_keyword = statement.by_keyword
        for line in node.body or ():
            parameter = by_keyword.get(line.keyword) or by_keyword.get(line.keyword.lower())
            if parameter is None:
                self._unknown_in_block(line, block, waiting)
                continue
            if parameter.kind is Kind.BLOCK:
                self._read_nested(line, parameter, block, waiting)
            elif line.body is not None:
                self.findings.error(line, "not-a-block", f"{parameter.name} is a parameter, not a block")
            elif parameter.kind is Kind.REF:
                self._read_reference(line, parameter, block)
            else:
                self._read_value(line, parameter, block)
            block.coded[parameter.name] = line
        block.values.update((name, tuple(items)) for name, items in block.lists.items())
        self._every_block.append(block)
        return block

    def _read_nested(self, line: Statement, parameter: Parameter, block: Block, waiting: list[Statement]) -> None:
        if line.body is None:
            hint = f"to use a {parameter.target} defined elsewhere write {parameter.name}Ref" if line.words else None
            self.findings.error(
                line, "missing-brace", f"{parameter.name} must be followed by a line with '{{'", hint=hint
            )
            block.nested.setdefault(parameter.slot, [])
            return
        # The words behind the head of a nested block may name it; nothing can refer to that name.
        nested = self._read_block(line, language.STATEMENTS[parameter.target], None, waiting)
        self._add_member(line, parameter, block, nested)

    def _read_reference(self, line: Statement, parameter: Parameter, block: Block) -> None:
        if not line.words:
            self.findings.error(line, "missing-value", f"{parameter.name} needs the name of a {parameter.target}")
            block.nested.setdefault(parameter.slot, [])
            return
        self._add_member(line, parameter, block, (parameter, line))

    def _add_member(
        self, line: Statement, parameter: Parameter, block: Block, member: Block | tuple[Parameter, Statement]
    ) -> None:
        members = block.nested.setdefault(parameter.slot, [])
        if not parameter.many:
            self._check_slot(line, parameter, block)
            members.clear()
        members.append(member)

    def _read_value(self, line: Statement, parameter: Parameter, block: Block) -> None:
        words = line.words
        if not words:
            if parameter.kind is not Kind.EMPTY_LABEL:
                self.findings.error(line, "missing-value", f"{parameter.name} has no value")
                return
            words = [""]
        try:
            value, used = values.parse(parameter, words)
        except values.BadValue as bad:
            hint = bad.hint
            if hint is None and bad.code == "bad-choice":
                hint = self._suggestions.near(words[0], parameter.choices)
            elif hint is None and bad.code == "bad-code" and "_" in words[0]:
                hint = self._suggestions.near(words[0], [*codes.CIPHERS.values(), *codes.SIGNATURE_PAIRS.values()])
            self.findings.error(line, bad.code, bad.message, word=bad.word, hint=hint)
            return
        if used < len(words):
            self._left_over(line, parameter, words, used)
        if parameter.instead and not parameter.depends and value not in parameter.honoured:
            self._cannot_honour(line, parameter, words[0], block)
        if parameter.many:
            assert isinstance(value, tuple | str)
            # The first instance of a repeated element counts; a dictionary keeps that order at any length.
            listed = block.lists.setdefault(_SAME_LIST.get(parameter.name, parameter.name), {})
            listed.update(dict.fromkeys(value if isinstance(value, tuple) else (value,)))
            if parameter.kind is Kind.CLIENT_GROUPS and "Any" in listed and len(listed) > 1:
                self.findings.error(
                    line, "contradiction", f"{parameter.name} Any cannot be combined with other curves", word=1
                )
            return
        if parameter.slot or parameter.name in block.coded:
            self._check_slot(line, parameter, block)
        block.values[parameter.name] = value

    def _check_slot(self, line: Statement, parameter: Parameter, block: Block) -> None:
        # What may be said once: twice in the same way is z/OS's "last one counts", in two ways a contradiction.
        if (earlier := block.coded.get(parameter.name)) is not None:
            self.findings.warning(
                line,
                "coded-twice",
                f"{parameter.name} is coded again (first on line {earlier.line}); only the last one counts",
            )
            return
        for other in block.statement.slots.get(parameter.slot, ()):
            if other in block.coded:
                self.findings.error(
                    line,
                    "contradiction",
                    f"{parameter.name} and {other} (line {block.coded[other].line}) exclude each other",
                )

    def _cannot_honour(self, line: Statement, parameter: Parameter, word: str, block: Block) -> None:
        if parameter.refused:
            self.findings.error(
                line, "not-supported", f"{parameter.name} {word} cannot be honoured: {parameter.instead}", word=1
            )
        elif parameter.name not in block.coded:  # lists of many lines are spoken of once
            self.findings.warning(
                line, "not-supported", f"{parameter.name} {_short(word)} has no effect: {parameter.instead}", word=1
            )

    def _left_over(self, line: Statement, parameter: Parameter, words: list[str], used: int) -> None:
        # Words behind the value are ignored. Say so where they look as if they had been meant.
        following = words[used]
        if parameter.kind in (Kind.LABEL, Kind.EMPTY_LABEL) and '"' not in line.source.lines[line.line - 1]:
            self.findings.warning(
                line,
                "ignored-words",
                f"{parameter.name} is '{words[0]}'; the words behind it are ignored",
                word=used + 1,
                hint="put a label with blanks in double quotes",
            )
        elif parameter.kind in _CODES:
            try:
                values.parse(parameter, [following])
            except values.BadValue:
                return
            self.findings.warning(
                line,
                "ignored-words",
                f"'{_short(following)}' is ignored: one value a line",
                word=used + 1,
                hint=f"repeat {parameter.name} on a line of its own",
            )

    def _unknown_in_block(self, line: Statement, block: Block, waiting: list[Statement]) -> None:
        if line.keyword == "":
            return
        lower = line.keyword.lower()
        statement = language.BY_KEYWORD.get(lower)
        where = block.statement.name
        if statement is not None and line.body is not None:
            # Read it all the same, as if the block around it had been closed.
            if line.words:
                waiting.append(line)
            if not block.node.closed:
                return
            hint: str | None = f"is a '}}' missing before line {line.line}?"
            reference = block.statement.by_keyword.get(f"{lower}ref")
            if reference is not None:
                hint = f"define it outside and write {reference.name}, or {hint}"
            self.findings.error(
                line, "wrong-place", f"{statement.name} cannot stand inside {where} (line {block.node.line})", hint=hint
            )
            return
        if places := language.PLACES.get(lower):
            self.findings.error(
                line,
                "wrong-place",
                f"{_spelling(lower)} is no parameter of {where}; it belongs in {' or '.join(places)}",
                hint=_level_hint(places, where),
            )
            return
        hint = self._suggestions.near(line.keyword, [parameter.name for parameter in block.statement.parameters])
        if hint is None:
            hint = self._suggestions.near(line.keyword, [_spelling(known) for known in language.PLACES])
        what = "block" if line.body is not None else "parameter"
        self.findings.error(line, "unknown-parameter", f"'{_short(line.keyword)}' is no {what} of {where}", hint=hint)

    def _unknown_at_file_level(self, node: Statement) -> None:
        lower = node.keyword.lower()
        if places := language.PLACES.get(lower):
            self.findings.error(
                node,
                "wrong-place",
                f"{_spelling(lower)} stands outside of any block; it belongs in {' or '.join(places)}",
                hint="is a '{' missing, or a '}' too many?",
            )
            return
        hint = self._suggestions.near(node.keyword, language.STATEMENTS)
        self.findings.error(node, "unknown-statement", f"'{_short(node.keyword)}' is no statement", hint=hint)

    # Pass 2: references and what must be there.

    def check(self) -> None:
        """Look up every reference and ask every statement for what it needs."""
        for block in self._every_block:
            if block.name is not None and self.blocks[block.statement.name].get(block.name) is not block:
                continue  # replaced by a later definition: what it names does not matter
            for members in block.nested.values():
                for member in members:
                    if isinstance(member, tuple):
                        self._look_up(*member)
            self._check_complete(block)
        for rule in self.blocks["TTLSRule"].values():
            self._check_rule(rule)

    def _look_up(self, parameter: Parameter, line: Statement) -> None:
        name = line.words[0]
        targets = self.blocks[parameter.target]
        if name in targets:
            self.referenced.add((parameter.target, name))
            return
        try:
            values.check_name(name, parameter.target)
        except values.BadValue as bad:
            self.findings.error(line, bad.code, bad.message, word=1)
            return
        hint = self._suggestions.near(name, targets)
        if hint is None:
            for other in language.STATEMENTS:
                if name in self.blocks[other]:
                    hint = f"there is a {other} of that name"
        self.findings.error(
            line,
            "unresolved-name",
            f"{parameter.name} '{_short(name)}': there is no such {parameter.target}",
            word=1,
            hint=hint,
        )

    def _check_complete(self, block: Block) -> None:
        for parameter in block.statement.parameters if block.node.closed else ():
            if not parameter.required or parameter.name in block.coded or parameter.slot in block.nested:
                continue
            missing = parameter.name if parameter.kind is not Kind.BLOCK else f"{parameter.name} or {parameter.name}Ref"
            title = block.statement.name if block.name is None else f"{block.statement.name} '{block.name}'"
            earlier = block.replaced
            if earlier is not None and (parameter.name in earlier.coded or parameter.slot in earlier.nested):
                # z/OS lets the later definition count; an incomplete one makes its connections fail, not leak.
                self.findings.warning(
                    block.node,
                    "missing-parameter",
                    f"{title} has no {missing} any more: the definition at {_place(earlier.node)} had it, "
                    "but this one counts; its connections will be refused",
                )
                continue
            self.findings.error(block.node, "missing-parameter", f"{title} has no {missing}")
        kind = block.statement.name
        if kind == "IpAddrSet" and not block.coded:
            self.findings.error(block.node, "missing-parameter", "IpAddrSet needs a Prefix or a Range")
        if kind in ("IpAddrGroup", "PortGroup") and not block.coded:
            self.findings.error(block.node, "missing-parameter", f"{kind} has no members, so nothing can match it")

    def _check_rule(self, rule: Block) -> None:
        conditions = [
            name
            for name in rule.coded
            if name in ("Jobname", "Userid") or name.startswith(("LocalAddr", "RemoteAddr", "LocalPort", "RemotePort"))
        ]
        if not conditions:
            self.findings.error(
                rule.node,
                "no-condition",
                f"TTLSRule '{rule.name}' says nothing about an address, a port, a job or a user",
                hint="code at least one of them; RemoteAddr All is enough",
            )
        group = self._action(rule, "TTLSGroupAction")
        if group is not None and group.values.get("TTLSEnabled") == "On" and "TTLSEnvironmentAction" not in rule.nested:
            self.findings.error(
                rule.node,
                "missing-parameter",
                f"TTLSRule '{rule.name}' has no TTLSEnvironmentActionRef, "
                f"but its group action '{group.name}' says TTLSEnabled On",
            )

    def _action(self, rule: Block, statement: str) -> Block | None:
        for member in rule.nested.get(statement, ()):
            if isinstance(member, tuple):
                return self.blocks[statement].get(member[1].words[0])
        return None

    # Pass 3: rules.

    def rules(self) -> tuple[Rule, ...]:
        """Build the rules in search order: priority, then name as ASCII. Call it only when nothing was wrong.

        What is wrong with actions together is found here, so look at the findings once more.
        """
        rules = [self._rule(block) for block in self.blocks["TTLSRule"].values()]
        rules.sort(key=lambda rule: (-rule.priority, rule.name))
        return tuple(rules)

    def actions(self) -> dict[tuple[str, str], Action]:
        """Return every action by statement and name, with what was coded in it and in its nested blocks."""
        return {
            (statement, name): Action(statement, name, self.coded(statement, name))
            for statement in ACTIONS
            for name in self.blocks[statement]
        }

    def _rule(self, block: Block) -> Rule:
        coded = block.values
        group = self._action(block, "TTLSGroupAction")
        environment = self._action(block, "TTLSEnvironmentAction")
        connection = self._action(block, "TTLSConnectionAction")
        names = (_name_of(group), _name_of(environment), _name_of(connection))
        enabled, trace, settings = self._ruling(names, block)
        assert block.name is not None
        return Rule(
            name=block.name,
            priority=int(str(coded.get("Priority", 1))),
            conditions=Conditions(
                directions=_DIRECTIONS[str(coded["Direction"])],
                local_addresses=self._side_addresses(block, "Local"),
                remote_addresses=self._side_addresses(block, "Remote"),
                local_ports=self._side_ports(block, "Local"),
                remote_ports=self._side_ports(block, "Remote"),
                job=_condition(coded.get("Jobname")),
                user=_condition(coded.get("Userid")),
                times=self._times(block),
            ),
            verdict=Verdict(block.name, enabled, names[0], names[1], names[2], trace, settings),
            file=block.node.source.name,
            line=block.node.line,
        )

    def _ruling(
        self, names: tuple[str | None, str | None, str | None], rule: Block
    ) -> tuple[bool, int, TlsSettings | None]:
        # Many rules name the same actions: work their settings out once, and let them share the value.
        known = self._verdicts.get(names)
        if known is None:
            effective = combine(
                [self.coded(kind, name) for kind, name in zip(ACTIONS, names, strict=True) if name is not None],
                self.defaults,
            )
            enabled = effective.get("TTLSEnabled") == "On"
            trace = effective.get("Trace", 2)
            assert isinstance(trace, int)
            fragment = effective.get("ClientMaxSSLFragment", "Off")
            if enabled and fragment != "Off" and "ClientMaxSSLFragmentLength" not in effective:
                self.findings.error(
                    rule.node,
                    "missing-companion",
                    f"TTLSRule '{rule.name}': ClientMaxSSLFragment {fragment} needs a ClientMaxSSLFragmentLength",
                    word=1,
                )
            settings = settings_of(effective) if enabled else None
            if settings is not None:
                self._report_limits(settings, names)
            known = (enabled, trace, settings)
            self._verdicts[names] = known
        return known

    def _report_limits(self, settings: TlsSettings, names: tuple[str | None, str | None, str | None]) -> None:
        # Where the actions together ask for what this system cannot do: once for each line, at the line that says it.
        coded: dict[str, Value] = {}
        for kind, name in zip(ACTIONS, names, strict=True):
            if name is not None:
                coded.update(self.coded(kind, name))
        for parameter, what, refused in limits(settings, coded):
            line = next(filter(None, (self._line_of(parameter, *pair) for pair in _innermost_first(names))), None)
            keyword = line.keyword if line is not None else parameter
            if line is None and names[0] is not None:
                line = self._line_of("Envfile", ACTIONS[0], names[0])
            if line is None or (line, parameter) in self._limited:
                continue  # said already
            self._limited.add((line, parameter))
            instead = language.PARAMETERS[parameter].instead
            report = self.findings.error if refused else self.findings.warning
            report(line, "not-supported", f"{keyword}: {what}; {instead}")

    def _line_of(self, parameter: str, statement: str, name: str) -> Statement | None:
        # The line of an action, or of a block in it, that says `parameter`.
        waiting = [self.blocks[statement][name]]
        while waiting:
            block = waiting.pop()
            for keyword, line in block.coded.items():
                if _SAME_LIST.get(keyword, keyword) == parameter:
                    return line
            waiting += [nested for slot in block.nested for nested in self._members(block, slot)]
        return None

    def coded(self, statement: str, name: str) -> dict[str, Value]:
        """Return what an action says, nested and referenced blocks flattened into it: names are unique there."""
        known = self._actions.get((statement, name))
        if known is None:
            known = {}
            block = self.blocks[statement][name]
            self._flatten(block, known)
            if "Envfile" in known:
                known = {**self._environment_file(block, str(known["Envfile"])), **known}
            self._actions[statement, name] = known
        return known

    def _environment_file(self, group: Block, name: str) -> dict[str, Value]:
        # What the group's file of environment variables sets; it counts less than anything the policy says.
        path = Path(group.node.source.name).parent / name
        try:
            variables, problems = envfile.read(path)
        except OSError as error:
            variables, problems = {}, [f"{error.strerror}; nothing is taken from it"]
        line = self._line_of("Envfile", "TTLSGroupAction", group.name or "") or group.node
        for problem in problems:
            self.findings.warning(line, "envfile", f"Envfile {path}: {problem}", word=1)
        return variables

    def _flatten(self, block: Block, into: dict[str, Value]) -> None:
        for slot in block.nested:
            for nested in self._members(block, slot):
                self._flatten(nested, into)
        if block.statement.name == "TTLSCipherParms":
            # As a block: a connection's list replaces the environment's whole.
            into["V2CipherSuites"] = ()
            into["V3CipherSuites"] = ()
        into.update(block.values)  # type: ignore[arg-type]

    def _members(self, block: Block, slot: str) -> Iterator[Block]:
        for member in block.nested.get(slot, ()):
            if isinstance(member, Block):
                yield member
            else:
                yield self.blocks[member[0].target][member[1].words[0]]

    def _side_addresses(self, rule: Block, side: str) -> tuple[AddressRange, ...]:
        slot = f"{side.lower()} address"
        direct = rule.values.get(f"{side}Addr")
        if direct is not None:
            return direct  # type: ignore[return-value]
        for block in self._members(rule, slot):
            assert block.name is not None
            key = (block.statement.name, block.name)
            if key not in self._addresses:
                self._addresses[key] = values.merge_addresses(self._addresses_in(block))
            return self._addresses[key]
        return ()

    def _addresses_in(self, block: Block) -> Iterator[AddressRange]:
        for value in block.values.values():
            yield from value  # type: ignore[misc]
        for slot in block.nested:
            for member in self._members(block, slot):
                yield from self._addresses_in(member)

    def _side_ports(self, rule: Block, side: str) -> tuple[PortRange, ...]:
        slot = f"{side.lower()} port"
        direct = rule.values.get(f"{side}PortRange")
        if direct is not None:
            return direct  # type: ignore[return-value]
        for block in self._members(rule, slot):
            assert block.name is not None
            key = (block.statement.name, block.name)
            if key not in self._ports:
                self._ports[key] = values.merge_ports(self._ports_in(block))
            return self._ports[key]
        return ()

    def _ports_in(self, block: Block) -> Iterator[PortRange]:
        for value in block.values.values():
            yield from value  # type: ignore[misc]
        for slot in block.nested:
            for member in self._members(block, slot):
                yield from self._ports_in(member)

    def _times(self, rule: Block) -> tuple[TimeCondition, ...]:
        return tuple(values.time_condition(block.values) for block in self._members(rule, "IpTimeCondition"))


def combine(actions: Iterable[dict[str, Value]], defaults: Defaults) -> dict[str, Value]:
    """Work out the effective parameters: defaults, then what group, environment and connection say, in that order.

    Parameters that nobody coded and that have no default are left out.
    """
    coded: dict[str, Value] = {}
    for action in actions:
        coded.update(action)
    effective: dict[str, Value] = {}
    for parameter in language.EFFECTIVE:
        value = coded.get(parameter.name)
        if value is None:
            value = parameter.silent(defaults)
        if value is not None:
            effective[parameter.name] = value
    if effective.get("TLSv1.3") == "On" and defaults is Defaults.ZOS:
        # z/OS lengthens its own default lists, never those of the policy.
        if "ClientECurves" not in coded:
            effective["ClientECurves"] = (*codes.ZOS_CLIENT_CURVES, codes.ZOS_TLSV1_3_CURVE)
        if "SignaturePairs" not in coded:
            effective["SignaturePairs"] = (*codes.ZOS_SIGNATURE_PAIRS, *codes.ZOS_TLSV1_3_PAIRS)
    return effective


def settings_of(effective: dict[str, Value]) -> TlsSettings:
    """Turn effective parameters into the settings that the TLS room works with."""

    def text(name: str) -> str | None:
        value = effective.get(name)
        return None if value is None else str(value)

    def number(name: str) -> int:
        return int(str(effective[name]))

    def on(name: str) -> bool:
        return effective.get(name) == "On"

    def words(name: str) -> tuple[str, ...]:
        value = effective.get(name, ())
        return tuple(str(item) for item in value) if isinstance(value, tuple) else (str(value),)

    def groups(name: str) -> tuple[int, ...]:
        # `Any` means every curve the library has, which is what an empty list says.
        return tuple(int(word) for word in words(name) if word != "Any")

    def maybe_number(name: str) -> int | None:
        return number(name) if name in effective else None

    settings = TlsSettings(
        role=HandshakeRole(effective["HandshakeRole"]),
        keyring=text("Keyring") or "",
        protocols=frozenset(protocol for name, protocol in PROTOCOLS.items() if on(name)),
        keyring_password=text("KeyringPw"),
        keyring_stash_file=text("KeyringStashFile"),
        ciphers=words("V3CipherSuites"),
        certificate_label=text("CertificateLabel"),
        server_certificate_labels=words("ServerCertificateLabel"),
        client_auth=ClientAuthType(effective["ClientAuthType"]),
        application_controlled=on("ApplicationControlled"),
        handshake_timeout=number("HandshakeTimeout"),
        client_curves=groups("ClientECurves"),
        client_key_share_groups=groups("ClientKeyShareGroups"),
        server_kex_curves=groups("ServerKexECurves"),
        server_key_share_groups=groups("ServerKeyShareGroups"),
        signature_pairs=words("SignaturePairs"),
        sni_names=words("ClientHandshakeSNIList") if effective["ClientHandshakeSNI"] != "Off" else (),
        sni_required=effective["ClientHandshakeSNI"] == "Required",
        host_reference_dns=text("HostReferenceIdDNS"),
        host_reference_cn=text("HostReferenceIdCN"),
        host_wildcards=on("HostRefWildcardValidation"),
        peer_minimum_rsa_bits=number("PeerMinRsaKeySize"),
        peer_minimum_ecc_bits=number("PeerMinECCKeySize"),
        session_timeout=number("GSK_V3_SESSION_TIMEOUT"),
        session_cache_size=number("GSK_V3_SIDCACHE_SIZE"),
        client_tickets=on("GSK_SESSION_TICKET_CLIENT_ENABLE"),
        server_tickets=on("GSK_SESSION_TICKET_SERVER_ENABLE"),
        server_ticket_count=number("GSK_SESSION_TICKET_SERVER_COUNT"),
        secondary_map=on("SecondaryMap"),
        instance=(
            maybe_number("GroupUserInstance"),
            maybe_number("EnvironmentUserInstance"),
            maybe_number("ConnectionUserInstance"),
        ),
        signature_pairs_cert=words("SignaturePairsCert"),
        middlebox_compat=on("MiddleBoxCompatMode"),
        reset_cipher_timer=number("ResetCipherTimer") * 60,
        renegotiation=str(effective["Renegotiation"]),
        renegotiation_indicator=str(effective["RenegotiationIndicator"]),
        renegotiation_same_certificate=on("RenegotiationCertCheck"),
        sni_match_required=effective.get("ClientHandshakeSNIMatch") == "Required",
        server_sni=_pairs(words("ServerHandshakeSNIList")) if effective["ServerHandshakeSNI"] != "Off" else (),
        server_sni_demand=Demand(effective["ServerHandshakeSNI"]),
        server_sni_match_required=effective.get("ServerHandshakeSNIMatch") == "Required",
        client_maximum_fragment=(
            number("ClientMaxSSLFragmentLength")
            if effective["ClientMaxSSLFragment"] != "Off" and "ClientMaxSSLFragmentLength" in effective
            else 0
        ),
        client_fragment_demand=Demand(effective["ClientMaxSSLFragment"]),
        server_fragment_demand=Demand(effective["ServerMaxSSLFragment"]),
        client_extended_master_secret=_EXTENDED_MASTER_SECRET[str(effective["ClientExtendedMasterSecret"])],
        server_extended_master_secret=_EXTENDED_MASTER_SECRET[str(effective["ServerExtendedMasterSecret"])],
        certificate_validation=str(effective["CertValidationMode"]),
        peer_minimum_certificate_version=3 if effective["PeerMinCertVersion"] == "3" else 1,
        peer_minimum_dh_bits=number("PeerMinDHKeySize"),
        peer_minimum_dsa_bits=number("PeerMinDsaKeySize"),
        client_dh_group=str(effective["ClientEDHGroupSize"]),
        server_dh_group=str(effective["ServerEDHGroupSize"]),
        triple_des_key_check=on("3DesKeyCheck"),
        refuse_fallback=on("ServerScsv"),
        client_ticket_maximum_size=number("GSK_SESSION_TICKET_CLIENT_MAXSIZE"),
        client_tickets_kept=maybe_number("GSK_SESSION_TICKET_CLIENT_MAXCACHED"),
        server_ticket_algorithm=str(effective["GSK_SESSION_TICKET_SERVER_ALGORITHM"]),
        server_ticket_key_lifetime=number("GSK_SESSION_TICKET_SERVER_KEY_REFRESH"),
        server_ticket_lifetime=number("GSK_SESSION_TICKET_SERVER_TIMEOUT"),
        revocation=_revocation(effective),
    )
    return _with_suite_b(settings, str(effective.get("SuiteBProfile", "Off")))


def _with_suite_b(settings: TlsSettings, profile: str) -> TlsSettings:
    # A profile is written out: what is negotiated, checked and displayed knows nothing of it.
    if profile not in codes.SUITE_B:
        return settings
    suites, curves, pairs = codes.SUITE_B[profile]
    return replace(
        settings,
        protocols=settings.protocols & {Protocol.TLSV1_2},
        ciphers=suites,
        client_curves=curves,
        client_key_share_groups=(),
        server_kex_curves=curves,
        signature_pairs=pairs,
        signature_pairs_cert=(),
        certificate_curves=curves,
    )


def _revocation(effective: dict[str, Value]) -> Revocation | None:
    def text(name: str) -> str | None:
        return str(effective[name]) if name in effective else None

    def number(name: str) -> int:
        return int(str(effective[name]))

    def on(name: str) -> bool:
        return effective.get(name) == "On"

    def words(name: str) -> tuple[str, ...]:
        value = effective.get(name, ())
        return tuple(map(str, value)) if isinstance(value, tuple) else ()

    found = Revocation(
        ocsp_url=text("OcspUrl"),
        ocsp_from_certificate=on("OcspAiaEnable"),
        ocsp_url_first=on("OcspUrlPriority"),
        ocsp_proxy=text("OcspProxyServerName"),
        ocsp_proxy_port=number("OcspProxyServerPort"),
        ocsp_by_get=on("OcspRetrieveViaGet"),
        ocsp_nonce=on("OcspNonceGenEnable"),
        ocsp_nonce_required=on("OcspNonceCheckEnable"),
        ocsp_nonce_size=number("OcspNonceSize"),
        ocsp_timeout=number("OcspResponseTimeout"),
        ocsp_maximum_size=number("OcspMaxResponseSize"),
        ocsp_signer=text("OcspRequestSigkeylabel"),
        ocsp_signer_algorithm=str(effective["OcspRequestSigalg"]),
        ocsp_algorithms=words("OcspResponseSigAlgPairs"),
        ocsp_cache_size=number("OcspClientCacheSize"),
        ocsp_cache_size_each=number("OcspCliCacheEntryMaxsize"),
        staples=effective["OcspServerStapling"] != "Off",
        lists_by_http=on("HttpCdpEnable"),
        http_proxy=text("HttpCdpProxyServerName"),
        http_proxy_port=number("HttpCdpProxyServerPort"),
        http_timeout=number("HttpCdpResponseTimeout"),
        http_maximum_size=number("HttpCdpMaxResponseSize"),
        list_algorithms=words("CrlSigAlgPairs"),
        list_cache_size=number("HttpCdpCacheSize"),
        list_cache_largest=number("HttpCdpCacheEntryMaxsize"),
        ldap_servers=words("GSK_LDAP_SERVER"),
        ldap_port=number("GSK_LDAP_SERVER_PORT"),
        ocsp_first=on("AIACDPPriority"),
        places_each=number("MaxSrcRevExtLocValues"),
        places_in_all=number("MaxValidRevExtLocValues"),
        level=str(effective["RevocationSecurityLevel"]),
    )
    return None if found == Revocation() else found


def _pairs(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    # "name label" as the vocabulary keeps a pair; a label may have blanks of its own.
    split = [text.partition(" ") for text in texts]
    return tuple((name.lower(), label) for name, _, label in split)


def _condition(pattern: object) -> str | None:
    # A lone `*` is what configuration tools write for "any": nothing is looked at, not even whether the owner is known.
    return None if pattern is None or not str(pattern).strip("*") else str(pattern)


def _innermost_first(names: tuple[str | None, str | None, str | None]) -> list[tuple[str, str]]:
    # The actions of a rule by statement and name, beginning with the one that counts most.
    return [(kind, name) for kind, name in zip(ACTIONS, names, strict=True) if name is not None][::-1]


def _name_of(action: Block | None) -> str | None:
    return None if action is None else action.name


def _place(node: Statement) -> str:
    return f"{node.source.name}:{node.line}"


def _short(word: str) -> str:
    return word if len(word) <= 60 else f"{word[:57]}..."


def _spelling(lower: str) -> str:
    # The vocabulary's spelling of a keyword.
    statement = language.STATEMENTS[language.PLACES[lower][0]]
    return statement.by_keyword[lower].name


def _level_hint(places: tuple[str, ...], where: str) -> str | None:
    # Protocol switches and ciphers at the wrong level are the commonest mistake: say which levels there are.
    levels = []
    if any("Environment" in place or place in ("TTLSCipherParms", "TTLSSignatureParms") for place in places):
        levels.append("TTLSEnvironmentAction")
    if any("Connection" in place or place in ("TTLSCipherParms", "TTLSSignatureParms") for place in places):
        levels.append("TTLSConnectionAction")
    if any("Group" in place for place in places):
        levels.insert(0, "TTLSGroupAction")
    if not levels or "Action" not in where or where in places:
        return None
    blocks = " or ".join(place for place in places if "Parms" in place)
    return f"put it in {blocks} of a {' or '.join(levels)}" if blocks else None
