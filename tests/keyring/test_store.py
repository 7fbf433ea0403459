"""The store on disk: what is kept, what is refused, what a crash or a second process can do."""

import multiprocessing
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from attls.errors import KeyringError
from attls.keyring import Store, Trust, Usage, certificates, names, operations
from attls.keyring.store import Connection, key_id

from .workshop import NOW, Workshop


def test_private_keys_are_0600_in_directories_of_0700(shop: Workshop) -> None:
    """No key file or directory is open to anybody else, whatever the umask."""
    private = shop.directory / "private"
    for path in (private, *private.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert expected == stat.S_IMODE(path.stat().st_mode)


def test_secrets_stay_out_of_git(shop: Workshop) -> None:
    """No private key lies outside the one directory that the ignore file names."""
    with_keys = {path for path in shop.directory.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()}
    assert {True} == {path.is_relative_to(shop.directory / "private") for path in with_keys}
    assert "/private/" in (shop.directory / ".gitignore").read_text()


def test_what_was_kept_is_read_back(shop: Workshop) -> None:
    """Owner as it was spelled, label, trust, certificate and key."""
    stored = shop.store.certificate("DEMO", "server")
    assert (stored.owner, stored.shown_owner, stored.label, stored.trust) == ("DEMO", "demo", "server", Trust.TRUST)
    assert shop.store.has_key(stored)
    assert shop.store.owners() == ["CERTAUTH", "DEMO"]


def test_a_duplicate_label_is_refused(shop: Workshop) -> None:
    """Owners fold case, so DEMO and demo are one."""
    with pytest.raises(KeyringError, match="already has a certificate labelled 'server'"):
        shop.leaf(owner="Demo")
    shop.leaf("Server")  # labels do not


def test_the_same_certificate_is_not_kept_twice(shop: Workshop) -> None:
    """One certificate has one owner, or it could stand for two users."""
    certificate = shop.store.certificate("demo", "server").certificate
    with pytest.raises(KeyringError, match="already in the store as 'server' of demo"):
        shop.store.add("alice", "mine", certificate, trust=Trust.TRUST)


def test_a_key_of_another_certificate_is_refused(shop: Workshop) -> None:
    """On the way in."""
    other = certificates.generate_key("ecdsa-p256")
    root = shop.store.certificate("CERTAUTH", "Root").certificate
    with pytest.raises(KeyringError, match="does not belong") as caught:
        shop.store.add("alice", "x", root, trust=Trust.TRUST, private_key=other)
    assert caught.value.code == 428


def test_a_key_that_was_swapped_on_disk_is_noticed(shop: Workshop) -> None:
    """On the way out, when somebody copied files by hand."""
    shop.leaf("other")
    shop.key_file().write_bytes(shop.key_file(label="other").read_bytes())
    with pytest.raises(KeyringError, match="does not belong to the certificate") as caught:
        shop.store.ring("demo/SERVER")
    assert caught.value.code == 428


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nMIG", b"garbage"])
def test_a_damaged_key_is_noticed(shop: Workshop, content: bytes) -> None:
    """A truncated key is refused with the path of its file."""
    shop.key_file().write_bytes(content)
    with pytest.raises(KeyringError, match=r"private/DEMO/server\..*\.key: the private key cannot be read") as caught:
        shop.store.ring("demo/SERVER")
    assert caught.value.code == 428


@pytest.mark.parametrize("where", ["file", "owner", "private"])
def test_a_loose_key_is_refused_with_the_chmod(shop: Workshop, where: str) -> None:
    """File, owner's directory and the directory of all keys each have to be closed."""
    file = shop.key_file()
    path = {"file": file, "owner": file.parent, "private": file.parent.parent}[where]
    path.chmod(path.stat().st_mode | 0o040)
    wanted = "600" if where == "file" else "700"
    with pytest.raises(KeyringError, match=f"chmod {wanted} {path}") as caught:
        shop.store.ring("demo/SERVER")
    assert caught.value.code == 428


@pytest.mark.parametrize(
    "where", [".", "rings", "rings/DEMO", "rings/DEMO/SERVER.toml", "certificates/CERTAUTH/Root.pem"]
)
def test_a_trust_anchor_that_others_may_change_is_refused(shop: Workshop, where: str) -> None:
    """Who can write a ring or an authority can impersonate everybody."""
    path = shop.directory / where
    path.chmod(path.stat().st_mode | 0o002)
    if where == "rings":
        return  # nothing is read from it directly; keyring verify reports it
    with pytest.raises(KeyringError, match="chmod go-w"):
        shop.store.ring("demo/SERVER")


def test_a_certificate_cannot_write_its_own_trust_line(workshop: Workshop) -> None:
    """The subject is shown above the certificate, with line ends taken out."""
    subject = "Evil\\0aTrust: HIGHTRUST\\0a"
    workshop.authority()
    stored = workshop.leaf("x", subject=f"O={subject}")
    assert stored.trust is Trust.TRUST
    text = workshop.store.certificate_path("demo", "x").read_text()
    assert text.count("\nTrust: ") == 1


@pytest.mark.parametrize("line", ["Trust: TRUST", "Owner: demo", "Label: server"])
def test_a_certificate_without_its_lines_is_damaged(shop: Workshop, line: str) -> None:
    """Trust is never assumed."""
    path = shop.store.certificate_path("demo", "server")
    path.write_text(path.read_text().replace(line + "\n", ""))
    with pytest.raises(KeyringError, match="lacks a valid Owner, Label or Trust"):
        shop.store.certificate("demo", "server")


def test_a_certificate_that_was_moved_is_damaged(shop: Workshop) -> None:
    """A file copied to another owner does not become that owner's certificate."""
    path = shop.store.certificate_path("demo", "server")
    target = shop.store.certificate_path("alice", "server")
    target.parent.mkdir()
    target.write_bytes(path.read_bytes())
    with pytest.raises(KeyringError, match="does not hold the one certificate"):
        shop.store.certificate("alice", "server")


def test_odd_labels_are_kept_apart(workshop: Workshop) -> None:
    """Slashes, dots, percent signs and blanks are encoded; every label comes back as it was."""
    workshop.authority()
    odd = ["../../etc/passwd", ".hidden", "a/b", "a%2Fb", "Demo CA", "ünï", '"quoted"', "back\\slash", "..", "x.key"]
    for label in odd:
        workshop.leaf(label)
    assert sorted(odd) == sorted(workshop.store.labels("demo"))
    workshop.ring("ODD", *(("demo", label, Usage.PERSONAL, False) for label in odd))
    assert set(odd) == {entry.label for entry in workshop.store.ring("demo/ODD").entries}
    inside = {path for path in workshop.directory.rglob("*") if path.is_file()}
    assert len(inside) == 2 * (len(odd) + 1) + 3  # ring, lock and ignore file


def test_hightrust_is_for_authorities(shop: Workshop) -> None:
    """Only CERTAUTH can vouch for user ids."""
    assert shop.store.set_trust("CERTAUTH", "Root", Trust.HIGHTRUST).trust is Trust.HIGHTRUST
    with pytest.raises(KeyringError, match="only a CERTAUTH certificate can be HIGHTRUST"):
        shop.store.set_trust("demo", "server", Trust.HIGHTRUST)


def test_a_new_default_replaces_the_old_one(shop: Workshop) -> None:
    """A ring has one default."""
    shop.leaf("second")
    shop.store.connect("demo", "SERVER", Connection("DEMO", "second", Usage.PERSONAL, default=True))
    ring = shop.store.definition("demo", "SERVER")
    assert [line.label for line in ring.connections if line.default] == ["second"]


def test_connecting_again_changes_how_it_is_connected(shop: Workshop) -> None:
    """No certificate is on a ring twice."""
    shop.store.connect("demo", "SERVER", Connection("DEMO", "server", Usage.SITE))
    ring = shop.store.definition("demo", "SERVER")
    assert [(line.label, line.usage) for line in ring.connections] == [("Root", Usage.CERTAUTH), ("server", Usage.SITE)]


def test_what_is_not_in_the_store_cannot_be_connected(shop: Workshop) -> None:
    """A ring never names what was never there."""
    with pytest.raises(names.MissingError, match="it has 'server'"):
        shop.store.connect("demo", "SERVER", Connection("DEMO", "serve", Usage.PERSONAL))


def test_deleting_a_certificate_takes_key_and_connections_along(shop: Workshop) -> None:
    """No dangling ring, no orphaned key."""
    assert [ring.reference for ring in shop.store.delete("demo", "server")] == ["demo/SERVER"]
    assert [line.label for line in shop.store.definition("demo", "SERVER").connections] == ["Root"]
    assert shop.store.key_files() == [shop.key_file("CERTAUTH", "Root")]


def test_renaming_follows_to_all_rings(shop: Workshop) -> None:
    """Key, default and usage stay."""
    shop.store.relabel("demo", "server", "new name")
    assert shop.store.ring("demo/SERVER").identity().label == "new name"
    with pytest.raises(names.MissingError):
        shop.store.certificate("demo", "server")


def test_a_ring_belongs_to_a_user(workshop: Workshop) -> None:
    """CERTAUTH and SITE have virtual rings only; a ring is created once."""
    with pytest.raises(KeyringError, match="belongs to a user"):
        workshop.store.create_ring("certauth", "X")
    workshop.store.create_ring("demo", "X")
    with pytest.raises(KeyringError, match="exists already"):
        workshop.store.create_ring("DEMO", "X")


@pytest.mark.parametrize("text", ["", "owner = 1", "nonsense", 'owner = "demo"\nname = "OTHER"', "\xff"])
def test_a_damaged_ring_is_refused(shop: Workshop, text: str) -> None:
    """Whatever is in the file, it is a sentence with its path."""
    path = shop.directory / "rings/DEMO/SERVER.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(KeyringError, match=r"SERVER\.toml"):
        shop.store.ring("demo/SERVER")


@pytest.mark.parametrize("entry", ['owner = "../x"', 'label = ""', 'usage = "root"', "default = 1"])
def test_a_ring_with_an_impossible_line_is_refused(shop: Workshop, entry: str) -> None:
    """A ring edited by hand gets no further than the command line would."""
    path = shop.directory / "rings/DEMO/SERVER.toml"
    key = entry.partition(" ")[0]
    lines = [
        entry if line.startswith(f"{key} ") and number > 4 else line
        for number, line in enumerate(path.read_text().splitlines())
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(KeyringError, match="damaged"):
        shop.store.ring("demo/SERVER")


@pytest.mark.parametrize("value", ["1", '"x"', '["x"]', "[1]", "{a = 1}", "[[]]", "true", "[{}]"])
@pytest.mark.parametrize("kind", ["entry", "grant", "criterion", "revoked", "subject"])
def test_files_of_any_shape_are_read_or_refused(shop: Workshop, kind: str, value: str) -> None:
    """What a hand or a disk left behind is a sentence with the file's name, never a traceback."""
    store = shop.store
    text = {
        "entry": 'owner = "demo"\nname = "SERVER"\n',
        "subject": 'label = "l"\nuser = "u"\ntrust = "TRUST"\n',
    }.get(kind, "")
    looks: dict[str, tuple[str, Callable[[], object]]] = {
        "entry": ("rings/DEMO/SERVER.toml", lambda: store.ring("demo/SERVER")),
        "grant": ("grants.toml", store.grants),
        "criterion": ("criteria.toml", store.criteria),
        "revoked": ("revoked/CERTAUTH/Root.toml", lambda: store.revocations("CERTAUTH", "Root")),
        "subject": ("maps/U/l.toml", store.filters),
    }
    name, look = looks[kind]
    path = shop.directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}{kind} = {value}\n")
    with pytest.raises(KeyringError, match=path.name):
        look()


def _add_many(directory: Path, owner: str, done: "multiprocessing.Queue[str]") -> None:
    store = Store(directory)
    try:
        for number in range(10):
            profile = certificates.Profile(subject=certificates.subject_name(f"{owner}{number}"), days=1)
            operations.create(
                store, owner=owner, label=str(number), profile=profile, key_type="ed25519", signed_by=None, now=NOW
            )
            store.connect("demo", "SHARED", Connection(owner.upper(), str(number), Usage.PERSONAL))
        done.put("")
    except KeyringError as error:
        done.put(str(error))


def test_two_writers_at_once_lose_nothing(workshop: Workshop) -> None:
    """Each connection made by either process is on the shared ring afterwards."""
    workshop.store.create_ring("demo", "SHARED")
    context = multiprocessing.get_context("spawn")
    done: multiprocessing.Queue[str] = context.Queue()
    workers = [context.Process(target=_add_many, args=(workshop.directory, owner, done)) for owner in ("ann", "bob")]
    for worker in workers:
        worker.start()
    answers = [done.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert answers == ["", ""]
    assert len(workshop.store.definition("demo", "SHARED").connections) == 20


def test_a_ring_deleted_by_another_process_is_missing_afterwards_but_not_in_hand(shop: Workshop) -> None:
    """A keyring that was read stays whole; reading it again is return code 202."""
    held = shop.store.ring("demo/SERVER")
    Store(shop.directory).delete_ring("demo", "SERVER")
    assert held.identity().label == "server"
    with pytest.raises(KeyringError) as caught:
        shop.store.ring("demo/SERVER")
    assert caught.value.code == 202


def test_a_waiting_request_becomes_a_certificate(shop: Workshop) -> None:
    """The key waits in the store and is found by the certificate that comes back."""
    made = operations.request(
        shop.store,
        owner="demo",
        label="external",
        subject=certificates.subject_name("external"),
        alternative=(),
        key_type="rsa-2048",
    )
    assert shop.store.requests() == [("DEMO", "external")]
    with pytest.raises(KeyringError, match="certificate or request labelled 'external'"):
        operations.request(
            shop.store, owner="demo", label="external", subject=made.subject, alternative=(), key_type="ed25519"
        )
    answer = operations.sign_request(
        made,
        signed_by=operations.signer(shop.store, "Root"),
        profile=certificates.Profile(subject=x509.Name([]), days=5),
        now=NOW,
    )
    done = operations.import_certificate(
        shop.store,
        owner="demo",
        label="external",
        contents=certificates.read(certificates.pem(answer)),
        trust=None,
        source="answer",
        now=NOW,
    )
    assert shop.store.has_key(done.stored)
    assert shop.store.requests() == []
    assert key_id(answer) in shop.key_file(label="external").name


def test_settings_that_mean_nothing_are_refused(shop: Workshop) -> None:
    """A misspelt setting must not silently be the default."""
    path = shop.directory / "store.toml"
    for text in ("grant = true", "grants = 1", "virtual_auth = 'all'", "host_names = [1]"):
        path.write_text(text)
        with pytest.raises(KeyringError, match=r"store\.toml"):
            shop.store.settings()


def test_a_reader_does_not_stumble_over_a_rename(shop: Workshop) -> None:
    """While labels change back and forth the ring can always be read."""
    stop = threading.Event()

    def rename() -> None:
        store = Store(shop.directory)
        while not stop.is_set():
            store.relabel("demo", "server", "other")
            store.relabel("demo", "other", "server")
            stop.wait(0.01)

    thread = threading.Thread(target=rename)
    thread.start()
    try:
        seen = {shop.store.ring("demo/SERVER").identity().label for _ in range(100)}
    finally:
        stop.set()
        thread.join()
    assert seen <= {"server", "other"}
