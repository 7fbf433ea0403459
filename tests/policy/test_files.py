"""From a path to one policy: directories, Policy Agent files, data sets, files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from attls import policy
from attls.errors import Diagnostic, PolicyError
from attls.policy import Stack

OFF = "TTLSGroupAction off\n{\n  TTLSEnabled Off\n}\n"


def rule(name: str, priority: int = 1) -> str:
    body = f"  RemoteAddr All\n  Direction Both\n  Priority {priority}\n  TTLSGroupActionRef off\n"
    return f"TTLSRule {name}\n{{\n{body}}}\n"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")


def names(path: Path, **more: object) -> list[str]:
    return [item.name for item in policy.load(path, **more).rules]  # type: ignore[arg-type]


def refused(path: Path) -> list[Diagnostic]:
    with pytest.raises(PolicyError) as caught:
        policy.load(path)
    return [finding for finding in caught.value.diagnostics if finding.severity == "error"]


def test_a_directory_is_one_policy_in_name_order(tmp_path: Path) -> None:
    """Files may use each other's names; the later file's definition of a name counts; other files are not read."""
    write(tmp_path, b_policy=rule("one", 2) + OFF, a_policy=rule("one", 1) + rule("two", 1), c_txt="nonsense")
    loaded = policy.load(tmp_path)
    assert [("one", 2), ("two", 1)] == [(item.name, item.priority) for item in loaded.rules]
    assert ["duplicate-name"] == [finding.code for finding in loaded.diagnostics]


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    """A directory without policies is a mistake, not an empty policy."""
    assert ["no-files"] == [finding.code for finding in refused(tmp_path)]


def test_a_main_file_leads_to_the_policy(tmp_path: Path) -> None:
    """TcpImage names the image file, which names the policy; the common file comes first; paths are relative."""
    (tmp_path / "sub").mkdir()
    write(
        tmp_path,
        main_conf="LogLevel 31\nCodepage IBM-1047\nTcpImage TCPIP sub/image.conf FLUSH PURGE 600\n"
        "CommonTTLSConfig common.policy\n",
        common_policy=OFF + rule("common"),
    )
    write(tmp_path / "sub", image_conf="TTLSConfig stack.policy FLUSH\n", stack_policy=rule("stack"))
    assert ["common", "stack"] == names(tmp_path / "main.conf")


@pytest.mark.parametrize(
    ("main", "image", "expected"),
    [
        ("TcpImage A image.conf FLUSH PURGE 600", "TTLSConfig x.policy", Stack("A", True, 600)),
        ("PEPInstance A image.conf nopurge", "TTLSConfig x.policy FLUSH", Stack("A", False, 0)),
        ("TcpImage A image.conf NOPURGE 60", "TTLSConfig x.policy PURGE", Stack("A", True, 60)),
        ("TcpImage A 5\nTTLSConfig x.policy NOPURGE", "", Stack("A", False, 5)),
        ("TcpImage A 604800\nTTLSConfig x.policy", "", Stack("A", None, 604800)),
        ("TTLSConfig x.policy", "", Stack()),
    ],
)
def test_options_of_the_stack(tmp_path: Path, main: str, image: str, expected: Stack) -> None:
    """PURGE, NOPURGE and the interval are kept; what stands at TTLSConfig counts more than what TcpImage says."""
    write(tmp_path, main_conf=main, image_conf=image, x_policy=OFF + rule("r"))
    loaded = policy.load(tmp_path / "main.conf")
    assert (expected, ()) == (loaded.stack, loaded.diagnostics)


def test_options_that_do_nothing_are_named(tmp_path: Path) -> None:
    """NOFLUSH cannot be honoured, and a word that is no option is ignored: each with its place."""
    write(tmp_path, p_conf="TcpImage A NOFLUSH\nTTLSConfig x.policy PRUGE\n", x_policy=OFF + rule("r"))
    found = policy.load(tmp_path / "p.conf").diagnostics
    assert [("not-supported", 1, 12), ("ignored-words", 2, 21)] == [(it.code, it.line, it.column) for it in found]
    write(tmp_path, q_conf="TcpImage A FLUSH 4294967296\nTTLSConfig x.policy\n")
    assert [("bad-value", 1, 18)] == [(it.code, it.line, it.column) for it in refused(tmp_path / "q.conf")]


def test_a_common_file_alone_counts_and_is_named(tmp_path: Path) -> None:
    """On z/OS a stack without TTLSConfig has no AT-TLS; here the common file protects it all the same."""
    write(tmp_path, p_conf="CommonTTLSConfig x.policy\nTcpImage A\n", x_policy=OFF + rule("r"))
    loaded = policy.load(tmp_path / "p.conf")
    assert (["r"], ["no-ttlsconfig"]) == ([one.name for one in loaded.rules], [one.code for one in loaded.diagnostics])
    write(tmp_path, p_conf="CommonTTLSConfig x.policy\nTTLSConfig\n")
    assert () == policy.load(tmp_path / "p.conf").diagnostics


def test_a_policy_knows_whether_its_files_have_changed(tmp_path: Path) -> None:
    """Every file that was read counts, and of a directory also that one was added."""
    write(tmp_path, p_conf="CommonTTLSConfig x.policy\n", x_policy=OFF + rule("r"))
    loaded, directory = policy.load(tmp_path / "p.conf"), policy.load(tmp_path)
    assert [tmp_path / "p.conf", tmp_path / "x.policy"] == list(loaded.files)
    assert (loaded.files, directory.files) == (loaded.files_now(), directory.files_now())
    write(tmp_path, x_policy=OFF + rule("another"))
    assert loaded.files != loaded.files_now()
    directory = policy.load(tmp_path)
    write(tmp_path, y_policy=rule("new"))
    assert directory.files != directory.files_now()


def test_one_file_may_be_main_image_and_policy(tmp_path: Path) -> None:
    """TTLSConfig in front of policy statements is said, and both are read."""
    write(
        tmp_path, p_conf="TcpImage A p.conf\nTTLSConfig other.policy\n" + OFF + rule("here"), other_policy=rule("there")
    )
    loaded = policy.load(tmp_path / "p.conf")
    assert ["here", "there"] == [item.name for item in loaded.rules]
    assert ["image-line"] == [finding.code for finding in loaded.diagnostics]


def test_the_last_ttlsconfig_and_the_first_stack_count(tmp_path: Path) -> None:
    """This system has one stack; a repeated TTLSConfig replaces the one before."""
    write(
        tmp_path,
        p_conf="TcpImage A a.conf\nPEPInstance B b.conf\n",
        a_conf="TTLSConfig one.policy\nTTLSConfig two.policy\n",
        b_conf="TTLSConfig one.policy\n",
        one_policy=OFF + rule("one"),
        two_policy=OFF + rule("two"),
    )
    loaded = policy.load(tmp_path / "p.conf")
    assert ["two"] == [item.name for item in loaded.rules]
    assert ["second-stack", "coded-twice"] == [finding.code for finding in loaded.diagnostics]


def test_a_main_file_with_an_image_file_of_its_own_has_no_say(tmp_path: Path) -> None:
    """Where TcpImage names another file, a TTLSConfig in the main file does not count, and that is said."""
    write(
        tmp_path,
        p_conf="TcpImage A a.conf\nTTLSConfig two.policy\n",
        a_conf="TTLSConfig one.policy\n",
        one_policy=OFF + rule("one"),
        two_policy=OFF + rule("two"),
    )
    loaded = policy.load(tmp_path / "p.conf")
    assert ["one"] == [item.name for item in loaded.rules]
    assert ["wrong-file"] == [finding.code for finding in loaded.diagnostics]


def test_files_that_name_each_other_are_read_once(tmp_path: Path) -> None:
    """A circle of files ends."""
    write(tmp_path, a_conf="TcpImage A b.conf\n" + OFF + rule("r"), b_conf="TTLSConfig a.conf\n")
    assert ["r"] == names(tmp_path / "a.conf")


def test_a_policy_file_that_names_policy_is_an_error(tmp_path: Path) -> None:
    """In a file that is named as policy a TTLSConfig would be ignored on z/OS; here nobody is left to wonder."""
    write(tmp_path, a_policy="TTLSConfig b.policy\n" + OFF)
    assert ["wrong-file"] == [finding.code for finding in refused(tmp_path)]


def test_missing_files_are_named(tmp_path: Path) -> None:
    """The error stands at the path in the file that names it."""
    write(
        tmp_path,
        p_conf="TcpImage A nowhere.conf\nCommonTTLSConfig\nLogLevel high\n",
        q_conf="TcpImage A\nTTLSConfig /no/such.policy\n",
    )
    found = refused(tmp_path / "p.conf")
    assert [(1, 12), (2, 1), (3, 10)] == [(item.line, item.column) for item in found]
    assert "nowhere.conf" in found[0].message
    (missing,) = refused(tmp_path / "q.conf")
    assert (2, 12) == (missing.line, missing.column)
    assert "/no/such.policy" in missing.message


def test_a_data_set_can_be_mapped(tmp_path: Path) -> None:
    """An MVS data set name is an error that says how to map it; mapped, it is the file."""
    write(tmp_path, p_conf="TTLSConfig //'SYS1.PAGENT(TTLS)' FLUSH\n", ttls_policy=OFF + rule("r"))
    found = refused(tmp_path / "p.conf")
    assert ["data-set"] == [item.code for item in found]
    assert "--dataset" in (found[0].hint or "")
    assert ["r"] == names(tmp_path / "p.conf", datasets={"sys1.pagent(ttls)": tmp_path / "ttls.policy"})


def test_policy_from_a_server_cannot_be_had(tmp_path: Path) -> None:
    """A PolicyServer block for AT-TLS would make the local policy void, so it is refused; others are ignored."""
    block = "PolicyServer\n{\n  ClientName me\n  PolicyType {kind}\n  {\n    FLUSH\n  }\n}\n"
    write(tmp_path, a_conf=block.replace("{kind}", "TTLS"), b_conf=block.replace("{kind}", "QOS") + OFF + rule("r"))
    assert "policy-server" in [item.code for item in refused(tmp_path / "a.conf")]
    assert ["not-used"] == [finding.code for finding in policy.load(tmp_path / "b.conf").diagnostics]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing policy is an error like any other, with the file's name."""
    assert ["unreadable"] == [item.code for item in refused(tmp_path / "nothing.policy")]


def test_ebcdic_is_recognised(tmp_path: Path) -> None:
    """A file in an EBCDIC code page gets one sentence that says how to convert it, not a thousand errors."""
    (tmp_path / "p.policy").write_bytes((OFF + rule("r")).replace("\n", "\x85").encode("cp037"))
    assert ["ebcdic"] == [item.code for item in refused(tmp_path / "p.policy")]


def test_old_letters_in_comments_do_no_harm(tmp_path: Path) -> None:
    """A file that is not UTF-8 is read as Latin-1; a byte order mark and Windows line ends are no letters."""
    (tmp_path / "p.policy").write_bytes(b"# gr\xfc\xdfe\n" + (OFF + rule("r")).encode())
    (tmp_path / "q.policy").write_bytes(b"\xef\xbb\xbf" + (OFF + rule("q")).replace("\n", "\r\n").encode())
    assert ["r"] == names(tmp_path / "p.policy")
    assert ["q"] == names(tmp_path / "q.policy")


def test_no_rules_is_worth_a_warning(tmp_path: Path) -> None:
    """An empty policy protects nothing, and says so."""
    write(tmp_path, p_policy="# nothing\n")
    assert ["no-rules"] == [finding.code for finding in policy.load(tmp_path / "p.policy").diagnostics]
