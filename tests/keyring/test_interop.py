"""Other implementations agree: openssl verifies and packs, stdlib ssl shakes hands, keytool's files are read."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from attls.errors import KeyringError
from attls.keyring import Keyring, Store, Trust, Usage, certificates, operations

from .workshop import NOW, Workshop

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


def openssl(*words: str, data: bytes | None = None) -> bytes:
    """Run the openssl command and return what it printed."""
    done = subprocess.run(["openssl", *words], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("kind", [kind for kind in certificates.KEY_TYPES if kind != "rsa-4096"])  # slow to make
@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_verifies_what_we_issue(workshop: Workshop, tmp_path: Path, kind: str, purpose: str) -> None:
    """Strictly, over an intermediate, for every key type and both purposes."""
    workshop.authority()
    workshop.authority("Middle", sign_with="Root", path_length=0)
    leaf = workshop.leaf(sign_with="Middle", key_type=kind)
    for label in ("Root", "Middle"):
        stored = workshop.store.certificate("CERTAUTH", label)
        (tmp_path / f"{label}.pem").write_bytes(certificates.pem(stored.certificate))
    (tmp_path / "leaf.pem").write_bytes(certificates.pem(leaf.certificate))
    said = openssl(
        "verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", "server.example",
        "-CAfile", str(tmp_path / "Root.pem"), "-untrusted", str(tmp_path / "Middle.pem"), str(tmp_path / "leaf.pem"),
    )  # fmt: skip
    assert b"leaf.pem: OK" in said


def handshake(server: Keyring, client: Keyring, tmp_path: Path, host: str) -> str | None:
    """Let two stdlib ends talk through memory with what two rings hold; return the protocol."""
    identity = server.identity()
    chain = tmp_path / "chain.pem"
    pems = [ssl.DER_cert_to_PEM_cert(one) for one in (identity.certificate, *identity.chain)]
    chain.write_bytes(identity.private_key + "".join(pems).encode())
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(chain)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.load_verify_locations(cadata=b"".join(client.trust_anchors()))
    ends = ssl.MemoryBIO(), ssl.MemoryBIO()
    speaker = client_context.wrap_bio(ends[0], ends[1], server_hostname=host)
    listener = server_context.wrap_bio(ends[1], ends[0], server_side=True)
    finished: set[ssl.SSLObject] = set()
    for _ in range(10):
        for end in (speaker, listener):
            try:
                end.do_handshake()
                finished.add(end)
            except ssl.SSLWantReadError:
                pass
    assert len(finished) == 2
    return speaker.version()


@pytest.mark.parametrize("host", ["server.example", "10.77.0.2", "fd77::2"])
def test_the_standard_library_shakes_hands_with_our_rings(workshop: Workshop, tmp_path: Path, host: str) -> None:
    """With the intermediate sent by the server and only the root on the client's ring."""
    workshop.authority()
    workshop.authority("Middle", sign_with="Root")
    workshop.leaf(sign_with="Middle", san="DNS:server.example,IP:10.77.0.2,IP:fd77::2")
    workshop.ring("S", ("demo", "server", Usage.PERSONAL, True), ("CERTAUTH", "Middle", Usage.CERTAUTH, False))
    workshop.ring("C", ("CERTAUTH", "Root", Usage.CERTAUTH, False))
    store = workshop.store
    assert handshake(store.ring("demo/S"), store.ring("demo/C"), tmp_path, host) == "TLSv1.3"


def test_certificates_of_trustme_become_rings(workshop: Workshop, tmp_path: Path) -> None:
    """Imported from PEM files with a separate chain, they serve like our own."""
    root = trustme.CA()
    made = root.create_child_ca().issue_cert("far.example")
    data = made.private_key_and_cert_chain_pem.bytes()
    for label, owner, content in (("far", "demo", data), ("root", "CERTAUTH", root.cert_pem.bytes())):
        operations.import_certificate(
            workshop.store,
            owner=owner,
            label=label,
            contents=certificates.read(content),
            trust=Trust.TRUST,
            chain_trust=Trust.TRUST,
            source="trustme",
            now=NOW,
        )
    middle = next(label for label in workshop.store.labels("CERTAUTH") if label != "root")
    workshop.ring("S", ("demo", "far", Usage.PERSONAL, True), ("CERTAUTH", middle, Usage.CERTAUTH, False))
    workshop.ring("C", ("CERTAUTH", "root", Usage.CERTAUTH, False))
    store = workshop.store
    assert handshake(store.ring("demo/S"), store.ring("demo/C"), tmp_path, "far.example") == "TLSv1.3"


@pytest.fixture(scope="module")
def made_by_openssl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, leaf.pem and leaf.key that the openssl command made."""
    tmp_path = tmp_path_factory.mktemp("openssl")
    (tmp_path / "ca.cnf").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n")
    (tmp_path / "leaf.cnf").write_text("subjectAltName=DNS:ssl.example\n")
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-keyout")
    openssl(
        *new,
        f"{tmp_path}/ca.key",
        "-x509",
        "-subj",
        "/O=OpenSSL/CN=Open CA",
        "-days",
        "9",
        "-out",
        f"{tmp_path}/ca.pem",
    )
    openssl(*new, f"{tmp_path}/leaf.key", "-subj", "/CN=ssl.example", "-out", f"{tmp_path}/leaf.csr")
    openssl(
        "x509", "-req", "-in", f"{tmp_path}/leaf.csr", "-CA", f"{tmp_path}/ca.pem", "-CAkey", f"{tmp_path}/ca.key",
        "-days", "5", "-CAcreateserial", "-extfile", f"{tmp_path}/leaf.cnf", "-out", f"{tmp_path}/leaf.pem",
    )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    "extra", [[], ["-legacy"], ["-certpbe", "NONE", "-keypbe", "NONE", "-nomac"]], ids=["modern", "legacy", "clear"]
)
def test_pkcs12_of_openssl_is_imported(made_by_openssl: Path, workshop: Workshop, extra: list[str]) -> None:
    """With today's algorithms, those of ten years ago, and none at all."""
    path = made_by_openssl
    openssl(
        "pkcs12", "-export", "-inkey", f"{path}/leaf.key", "-in", f"{path}/leaf.pem", "-certfile", f"{path}/ca.pem",
        "-passout", "pass:secret", "-out", f"{path}/x.p12", *extra,
    )  # fmt: skip
    contents = certificates.read((path / "x.p12").read_bytes(), password=b"secret", name="x.p12")
    done = operations.import_certificate(
        workshop.store, owner="demo", label="ssl", contents=contents, trust=None, source="x.p12", now=NOW
    )
    assert workshop.store.has_key(done.stored)
    assert [one.label for one in done.authorities] == ["Open CA"]
    if "-nomac" not in extra:
        with pytest.raises(KeyringError) as caught:
            certificates.read((path / "x.p12").read_bytes(), password=b"wrong")
        assert caught.value.code == 408


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_pkcs7_of_openssl_is_imported(made_by_openssl: Path, workshop: Workshop, form: str) -> None:
    """The leaf is found whatever the order, the authority comes along."""
    path = made_by_openssl
    openssl(
        "crl2pkcs7", "-nocrl", "-certfile", f"{path}/ca.pem", "-certfile", f"{path}/leaf.pem",
        "-outform", form, "-out", f"{path}/x.p7b",
    )  # fmt: skip
    contents = certificates.read((path / "x.p7b").read_bytes())
    done = operations.import_certificate(
        workshop.store, owner="demo", label="ssl", contents=contents, trust=None, source="x.p7b", now=NOW
    )
    assert certificates.common_name(done.stored.certificate) == "ssl.example"
    assert [one.label for one in done.authorities] == ["Open CA"]


@pytest.mark.parametrize(
    "form",
    [
        ["-traditional"],
        ["-outform", "DER"],
        ["-aes256", "-passout", "pass:secret"],
        ["-traditional", "-aes128", "-passout", "pass:secret"],
    ],
)
def test_keys_of_openssl_are_read(made_by_openssl: Path, form: list[str]) -> None:
    """Old and new containers, with and without a passphrase."""
    data = openssl("rsa", "-in", f"{made_by_openssl}/leaf.key", *form)
    contents = certificates.read(data, password=b"secret" if "-passout" in form else None)
    assert len(contents.keys) == 1
    assert contents.clear_key == ("-passout" not in form)
    if "-passout" in form:
        for wrong in (None, b"wrong"):
            with pytest.raises(KeyringError) as caught:
                certificates.read(data, password=wrong)
            assert caught.value.code == 408


def test_trusted_certificates_of_openssl_are_read(made_by_openssl: Path) -> None:
    """Its own trust settings, appended to the certificate, are left aside."""
    data = openssl("x509", "-in", f"{made_by_openssl}/leaf.pem", "-trustout", "-addtrust", "serverAuth")
    assert b"TRUSTED CERTIFICATE" in data
    expected = certificates.read((made_by_openssl / "leaf.pem").read_bytes()).certificates
    assert expected == certificates.read(data).certificates


def test_openssl_reads_what_we_export(shop: Workshop, tmp_path: Path) -> None:
    """PEM, DER, PKCS#7 and PKCS#12."""
    stored = shop.store.certificate("demo", "server")

    def export(form: str, *, with_key: bool = False, password: bytes | None = None) -> str:
        path = tmp_path / f"x.{form}"
        path.write_bytes(
            operations.export(shop.store, stored, form=form, with_key=with_key, with_chain=True, password=password)
        )
        return str(path)

    assert b"CN = server" in openssl("x509", "-in", export("pem"), "-noout", "-subject")
    assert b"CN = server" in openssl("x509", "-inform", "DER", "-in", export("der"), "-noout", "-subject")
    assert openssl("pkcs7", "-in", export("p7b"), "-print_certs").count(b"BEGIN CERTIFICATE") == 2
    p12 = export("p12", with_key=True, password=b"pw")
    assert b"BEGIN PRIVATE KEY" in openssl("pkcs12", "-in", p12, "-passin", "pass:pw", "-nodes")


def test_openssl_signs_our_requests(made_by_openssl: Path, workshop: Workshop) -> None:
    """And the answer finds its key."""
    path = made_by_openssl
    made = operations.request(
        workshop.store,
        owner="demo",
        label="ours",
        subject=certificates.subject_name("ours"),
        alternative=certificates.alternative_names("DNS:ours.example"),
        key_type="ecdsa-p384",
    )
    (path / "ours.csr").write_bytes(made.public_bytes(certificates.PEM_ENCODING))
    assert b"DNS:ours.example" in openssl("req", "-in", f"{path}/ours.csr", "-noout", "-text", "-verify")
    answer = openssl(
        "x509", "-req", "-in", f"{path}/ours.csr", "-CA", f"{path}/ca.pem", "-CAkey", f"{path}/ca.key", "-days", "3"
    )
    done = operations.import_certificate(
        workshop.store,
        owner="demo",
        label="ours",
        contents=certificates.read(answer),
        trust=None,
        source="answer",
        now=NOW,
    )
    assert workshop.store.has_key(done.stored)


@pytest.mark.skipif(shutil.which("keytool") is None, reason="needs Java's keytool")
def test_a_java_keystore_with_several_keys_is_refused(tmp_path: Path) -> None:
    """The library would silently take one of them."""
    path = tmp_path / "many.p12"
    for alias in ("one", "two"):
        words = f"-genkeypair -alias {alias} -dname CN={alias} -keyalg EC -storetype PKCS12 -storepass secret -keystore"
        subprocess.run(["keytool", *words.split(), str(path)], check=True, capture_output=True)
    with pytest.raises(KeyringError, match="several private keys"):
        certificates.read(path.read_bytes(), password=b"secret", name="many.p12")


def test_a_store_is_made_where_none_was(tmp_path: Path) -> None:
    """Down to missing parent directories."""
    Workshop(tmp_path / "a" / "b").authority()
    assert Store(tmp_path / "a" / "b").labels("CERTAUTH") == ["Root"]
