"""The z/OS spelling of the same operations."""

import contextlib
import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attls.errors import KeyringError
from attls.keyring import Store, Trust, certificates, names
from attls.keyring.racdcert import Session
from attls.keyring.tso import CommandError

from .workshop import NOW


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session of user START1 in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return Session(Store("keyrings"), "start1", lambda: NOW)


@pytest.fixture
def ready(session: Session) -> Session:
    """With an authority, a server certificate and a ring, made the z/OS way."""
    for line in (
        "RACDCERT CERTAUTH GENCERT SUBJECTSDN(CN('DocZosCA') OU('CA') O('COLIN')) NISTECC WITHLABEL('DOCZOSCA')",
        "RACDCERT ID(START1) GENCERT SUBJECTSDN(CN('10.1.1.2') O('COLIN')) NISTECC WITHLABEL('SERVER') "
        "ALTNAME(IP(10.1.1.2) DOMAIN('host.example.com')) SIGNWITH(CERTAUTH LABEL('DOCZOSCA')) "
        "KEYUSAGE(HANDSHAKE,DATAENCRYPT)",
        "RACDCERT ID(START1) ADDRING(TN3270)",
        "RACDCERT ID(START1) CONNECT(LABEL('SERVER') RING(TN3270) DEFAULT USAGE(PERSONAL))",
        "RACDCERT ID(START1) CONNECT(CERTAUTH LABEL('DOCZOSCA') RING(TN3270))",
    ):
        session.run(line)
    return session


def test_a_procedure_of_zos_builds_a_working_ring(ready: Session) -> None:
    """GENCERT, ADDRING and CONNECT give identity and anchor."""
    ring = ready.store.ring("START1/TN3270")
    summary = certificates.summary(certificates.load_certificate(ring.identity().certificate))
    assert summary["san"] == ["IP:10.1.1.2", "DNS:host.example.com"]
    assert summary["subject"] == "CN=10.1.1.2,O=COLIN"
    assert "data_encipherment" in summary["key_usage"]  # type: ignore[operator]
    assert len(ring.trust_anchors()) == 1


def test_listings_have_racfs_shape(ready: Session) -> None:
    """What scripts look for is where they look for it."""
    listed = ready.run("RACDCERT LIST(LABEL('SERVER'))").splitlines()
    assert listed[0] == "Digital certificate information for user START1:"
    for line in (
        "  Label: SERVER",
        "  Status: TRUST",
        "       >CN=DocZosCA.OU=CA.O=COLIN<",
        "       >CN=10.1.1.2.O=COLIN<",
        "    IP: 10.1.1.2",
        "    Domain: host.example.com",
        "  Signing Algorithm: sha256ECDSA",
        "  Key Usage: HANDSHAKE, DATAENCRYPT",
        "  Key Type: NIST ECC",
        "  Key Size: 256",
        "  Private Key: YES",
        "       >TN3270<",
    ):
        assert line in listed
    ring = ready.run("RACDCERT LISTRING(TN3270) ID(START1)").splitlines()
    assert ring == [
        "Digital ring information for user START1:",
        "",
        "  Ring:",
        "       >TN3270<",
        "  Certificate Label Name             Cert Owner     USAGE      DEFAULT",
        "  --------------------------------   ------------   --------   -------",
        "  SERVER                             ID(START1)     PERSONAL     YES",
        "  DOCZOSCA                           CERTAUTH       CERTAUTH     NO",
    ]
    assert ring == ready.run("RACDCERT LISTRING(*)").splitlines()
    assert "chain is complete" in ready.run("RACDCERT LISTCHAIN(LABEL('SERVER'))")


def test_certificates_come_and_go_by_file(ready: Session) -> None:
    """EXPORT in every format, CHECKCERT, ADD into another store."""
    other = Session(Store("other"), "bob", lambda: NOW)
    for form in ("CERTDER", "CERTB64", "PKCS7DER", "PKCS7B64"):
        ready.run(f"RACDCERT EXPORT(LABEL('SERVER')) DSN('{form}') FORMAT({form})")
        assert ">CN=10.1.1.2.O=COLIN<" in other.run(f"RACDCERT CHECKCERT('{form}')")
    for form in ("PKCS12DER", "PKCS12B64"):
        ready.run(f"RACDCERT EXPORT(LABEL('SERVER')) DSN('{form}') FORMAT({form}) PASSWORD('pass word')")
        assert Path(form).stat().st_mode & 0o777 == 0o600
        with pytest.raises(KeyringError, match="needs a password"):
            other.run(f"RACDCERT CHECKCERT('{form}')")
    printed = other.run("RACDCERT ID(BOB) ADD('PKCS12B64') WITHLABEL('mine') PASSWORD('pass word')")
    assert printed.splitlines() == [
        "Certificate added for user BOB, label mine, status NOTRUST.",
        "Certificate authority added, label DocZosCA, status NOTRUST.",
    ]
    other.run("RACDCERT CERTAUTH ALTER(LABEL('DocZosCA')) HIGHTRUST NEWLABEL('The CA')")
    assert other.store.certificate("CERTAUTH", "The CA").trust is Trust.HIGHTRUST
    other.run("RACDCERT ID(BOB) DELETE(LABEL('mine'))")
    assert other.store.labels("BOB") == []


def test_status_of_an_added_certificate_is_earned(ready: Session) -> None:
    """Self-signed and valid, or signed by a trusted authority: TRUST; else NOTRUST; what is given counts first."""
    ready.run("RACDCERT EXPORT(LABEL('SERVER')) DSN('leaf')")
    ready.run("RACDCERT CERTAUTH EXPORT(LABEL('DOCZOSCA')) DSN('ca')")
    other = Session(Store("other"), "bob", lambda: NOW)
    assert "status NOTRUST" in other.run("RACDCERT ADD('leaf')")
    assert other.store.labels("bob") == ["LABEL00000001"]
    assert "status TRUST" in other.run("RACDCERT CERTAUTH ADD('ca') WITHLABEL('ca')")
    assert "renewed for user BOB, label LABEL00000001, status TRUST" in other.run("RACDCERT ADD('leaf')")
    other.run("RACDCERT DELETE")
    assert "status NOTRUST" in other.run("RACDCERT ADD('leaf') NOTRUST")


def test_renewal_by_request_and_by_rollover(ready: Session) -> None:
    """GENREQ and GENCERT sign again with the same key; REKEY and ROLLOVER change the key on all rings."""
    before = ready.store.certificate("START1", "SERVER").certificate
    ready.run("RACDCERT GENREQ(LABEL('SERVER')) DSN('request')")
    ready.run("RACDCERT GENCERT('request') SIGNWITH(CERTAUTH LABEL('DOCZOSCA')) WITHLABEL('SERVER')")
    after = ready.store.certificate("START1", "SERVER").certificate
    assert before != after
    assert certificates.public_key_bytes(before) == certificates.public_key_bytes(after)
    ready.run("RACDCERT REKEY(LABEL('SERVER')) WITHLABEL('SERVER2')")
    ready.run("RACDCERT GENREQ(LABEL('SERVER2')) DSN('request2')")
    ready.run("RACDCERT GENCERT('request2') SIGNWITH(CERTAUTH LABEL('DOCZOSCA')) WITHLABEL('SERVER2')")
    ready.run("RACDCERT ROLLOVER(LABEL('SERVER')) NEWLABEL('SERVER2')")
    identity = ready.store.ring("START1/TN3270").identity()
    assert identity.label == "SERVER2"
    fresh = certificates.load_certificate(identity.certificate)
    assert certificates.is_issued_by(fresh, ready.store.certificate("CERTAUTH", "DOCZOSCA").certificate)
    assert "Private Key: NO" in ready.run("RACDCERT LIST(LABEL('SERVER'))")


def test_mapping_of_the_public_example(ready: Session) -> None:
    """MAP, LISTMAP, ALTMAP and DELMAP, with the owner in front or behind."""
    ready.run("RACDCERT MAP ID(IBMUSER) WITHLABEL('IBMUSER1Label') SDNFILTER('CN=colinpaice.O=cpwebuser.C=GB')")
    listed = ready.run("RACDCERT LISTMAP ID(IBMUSER)")
    assert (
        "  Label: IBMUSER1Label\n  Status: TRUST\n  Subject's Name Filter:\n       >CN=colinpaice.O=cpwebuser.C=GB<"
        in listed
    )
    ready.run("RACDCERT ID(IBMUSER) ALTMAP(LABEL('IBMUSER1Label')) NOTRUST NEWLABEL('other')")
    assert ready.store.filters("ibmuser")[0].trust is Trust.NOTRUST
    ready.run("RACDCERT DELMAP(LABEL('other')) ID(IBMUSER)")
    with pytest.raises(names.MissingError):
        ready.run("RACDCERT LISTMAP ID(IBMUSER)")
    ready.run("RACDCERT MULTIID MAP IDNFILTER('O=COLIN') CRITERIA(APPLID=&APPLID.SYSID=&SYSID) WITHLABEL('m')")
    assert ready.store.filters("MULTIID")[0].criteria == "APPLID=&APPLID.SYSID=&SYSID"
    ready.run("RACDCERT EXPORT(LABEL('SERVER')) DSN('model')")
    ready.run("RACDCERT ID(X) MAP('model') SDNFILTER('O=COLIN') IDNFILTER('CN=DocZosCA') WITHLABEL('x')")
    assert str(ready.store.filters("X")[0].issuer) == "CN=DocZosCA.OU=CA.O=COLIN"


def test_rings_and_connections_are_taken_down(ready: Session) -> None:
    """REMOVE and DELRING."""
    ready.run("RACDCERT ID(START1) REMOVE(CERTAUTH LABEL('DOCZOSCA') RING(TN3270))")
    assert [line.label for line in ready.store.definition("START1", "TN3270").connections] == ["SERVER"]
    ready.run("RACDCERT ID(START1) DELRING(TN3270)")
    assert ready.store.rings() == []


def test_dates_are_taken_as_they_are_written(ready: Session) -> None:
    """NOTBEFORE and NOTAFTER with date and time."""
    later = f"{NOW.year + 1}-06-30"
    ready.run(
        "RACDCERT GENCERT SUBJECTSDN(CN('x') OU('a','b') C('DE')) NISTECC WITHLABEL('dated') "
        f"NOTBEFORE(DATE({NOW.year}-01-01)) NOTAFTER(DATE({later}) TIME(12:30:00))"
    )
    made = ready.store.certificate("START1", "dated").certificate
    assert made.not_valid_before_utc == datetime.datetime(NOW.year, 1, 1, tzinfo=datetime.UTC)
    assert made.not_valid_after_utc == datetime.datetime(NOW.year + 1, 6, 30, 12, 30, tzinfo=datetime.UTC)
    assert ">CN=x.OU=a.OU=b.C=DE<" in ready.run("RACDCERT LIST(LABEL('dated'))")


def test_keywords_may_be_abbreviated(ready: Session) -> None:
    """As long as only one fits."""
    assert ready.run("RACDCERT LISTR(*)") == ready.run("racdcert listring(*)")
    with pytest.raises(CommandError, match="could be"):
        ready.run("RACDCERT AL(LABEL('x'))")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "RACDCERT",
        "RACDCERT ID(START1)",
        "RACDCERT NONSENSE",
        "RACDCERT LIST(LABEL('x)",
        "RACDCERT LIST(LABEL('x')",
        "RACDCERT LIST)",
        "RACDCERT (LIST)",
        "RACDCERT 'LIST'",
        "RACDCERT LIST(LABEL('x') FOO)",
        "RACDCERT ADDRING",
        "RACDCERT CONNECT(LABEL('SERVER'))",
        "RACDCERT CONNECT(LABEL('SERVER') RING(TN3270) USAGE(ROOT))",
        "RACDCERT ALTER(LABEL('SERVER'))",
        "RACDCERT ALTER(LABEL('SERVER')) TRUST NOTRUST",
        "RACDCERT GENCERT",
        "RACDCERT GENCERT SUBJECTSDN(CN('x')) NOTAFTER(DATE(tomorrow))",
        "RACDCERT GENCERT SUBJECTSDN(C('Germany'))",
        "RACDCERT GENCERT SUBJECTSDN(CN('x')) KEYUSAGE(FLY)",
        "RACDCERT EXPORT(LABEL('SERVER')) DSN('x') FORMAT(PDF)",
        "RACDCERT EXPORT(LABEL('SERVER'))",
        "RACDCERT MAP WITHLABEL('x')",
        "RACDCERT ID(A) ID(B) LIST LIST",
    ],
)
def test_what_cannot_be_understood_is_told_apart(ready: Session, line: str) -> None:
    """Wrong usage is not a failure of the store, and changes nothing."""
    before = {path: path.read_bytes() for path in Path("keyrings").rglob("*") if path.is_file()}
    with pytest.raises(CommandError):
        ready.run(line)
    assert before == {path: path.read_bytes() for path in Path("keyrings").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("RACDCERT ADDTOKEN(x)", "PKCS #11"),
        ("RACDCERT BIND(LABEL('SERVER') TOKEN(x))", "PKCS #11"),
        ("RACDCERT GENCERT SUBJECTSDN(CN('x')) ICSF", "hardware"),
        ("RACDCERT GENCERT SUBJECTSDN(CN('x')) SIZE(512)", r"SIZE\(512\) is not offered"),
        ("RACDCERT GENCERT SUBJECTSDN(CN('x')) DSA", "take RSA or NISTECC"),
        ("RACDCERT ADD('nofile')", "cannot read nofile"),
        ("RACDCERT ID(../x) LIST", "no user name"),
        ("RACDCERT ADDRING('a/b')", "must not contain"),
        ("RACDCERT LIST(LABEL('nope'))", "no certificate labelled"),
        ("RACDCERT LISTRING(NOPE)", "no ring"),
        ("RACDCERT ID(NOBODY) LIST", "no certificate information"),
    ],
)
def test_what_cannot_be_done_says_why(ready: Session, line: str, word: str) -> None:
    """In a sentence."""
    with pytest.raises(KeyringError, match=word):
        ready.run(line)


def test_a_password_that_others_could_see_is_refused(ready: Session) -> None:
    """On a command line every user of the machine reads it."""
    line = "RACDCERT EXPORT(LABEL('SERVER')) DSN('x') PASSWORD('secret')"
    with pytest.raises(CommandError, match="can be seen by others"):
        ready.run(line, secrets_allowed=False)
    ready.password = b"secret"
    ready.run("RACDCERT EXPORT(LABEL('SERVER')) DSN('x') FORMAT(PKCS12DER)", secrets_allowed=False)
    assert certificates.read(Path("x").read_bytes(), password=b"secret").keys


def test_a_password_from_elsewhere_counts_as_the_operand(ready: Session) -> None:
    """EXPORT without FORMAT is then PKCS#12, as with PASSWORD, however it is abbreviated."""
    with pytest.raises(CommandError, match="can be seen by others"):
        ready.run("RACDCERT EXPORT(LABEL('SERVER')) DSN('x') PASSW('secret')", secrets_allowed=False)
    ready.password = b"secret"
    ready.run("RACDCERT EXPORT(LABEL('SERVER')) DSN('x')")
    assert certificates.read(Path("x").read_bytes(), password=b"secret").keys


def test_the_owner_may_stand_behind_any_function(ready: Session) -> None:
    """Once; twice is a mistake."""
    ready.user = "other"
    ready.run("RACDCERT ADDRING(R2) ID(START1)")
    ready.run("RACDCERT CONNECT(ID(START1) LABEL('SERVER') RING(R2)) ID(START1)")
    ready.run("RACDCERT GENREQ(LABEL('SERVER')) ID(START1) DSN('request')")
    ready.run("RACDCERT REMOVE(ID(START1) LABEL('SERVER') RING(R2)) ID(START1)")
    ready.run("RACDCERT DELRING(R2) ID(START1)")
    assert "Chain contains ring in common: START1/TN3270" in ready.run("RACDCERT LISTCHAIN(LABEL('SERVER')) ID(START1)")
    with pytest.raises(CommandError, match="one owner is enough"):
        ready.run("RACDCERT ID(START1) LIST CERTAUTH")


@pytest.mark.parametrize(
    "line",
    [
        "RACDCERT ID(START1) ALTER(LABEL('SERVER')) NOTRUST NEWLABEL('SERVER')",
        "RACDCERT ID(START1) ALTER(LABEL('SERVER')) HIGHTRUST NEWLABEL('other')",
        "RACDCERT ID(BOB) ADD('foreign') HIGHTRUST",
        "RDELETE DIGTCRIT APPLID=NONE",
        "PERMIT START1.TN3270.LST CLASS(RDATALIB) ID(A B) DELETE",
    ],
)
def test_a_command_that_fails_half_way_has_changed_nothing(
    ready: Session, tmp_path_factory: pytest.TempPathFactory, line: str
) -> None:
    """Trust and label are changed together, and nothing is added that then cannot be marked."""
    other = Session(Store(tmp_path_factory.mktemp("other") / "k"), "x", lambda: NOW)
    other.run("RACDCERT GENCERT SUBJECTSDN(CN('x')) NISTECC WITHLABEL('x')")
    other.run("RACDCERT EXPORT(LABEL('x')) DSN('foreign')")
    before = {path: path.read_bytes() for path in Path("keyrings").rglob("*") if path.is_file()}
    with pytest.raises(KeyringError):
        ready.run(line)
    assert before == {path: path.read_bytes() for path in Path("keyrings").rglob("*") if path.is_file()}


def test_a_certificate_has_the_id_that_racf_gives_it(ready: Session) -> None:
    """Owner and label in EBCDIC behind x'D9' and the owner's length, in Base64."""
    listed = ready.run("RACDCERT LIST(LABEL('SERVER'))") + ready.run("RACDCERT CERTAUTH LIST")
    assert "Certificate ID: 2Qbi48HZ4/HixdnlxdlA" in listed
    assert "Certificate ID: 2QiJmZmDhZmjg" in listed


def test_criteria_and_permissions_are_taken_from_a_procedure(ready: Session) -> None:
    """DIGTCRIT says what criteria stand for, RDATALIB who may read a ring; ring names fold there."""
    store = ready.store
    assert ready.run("SETROPTS RACLIST(DIGTCRIT) REFRESH") == ""
    ready.run("RDEFINE DIGTCRIT APPLID=CICS1.SYSID=SY1 APPLDATA('USERX')")
    ready.run("RALTER DIGTCRIT 'APPLID=CICS1.SYSID=SY1' APPLDATA('USERY') UACC(NONE)")
    assert [(one.pattern, one.user) for one in store.criteria()] == [("APPLID=CICS1.SYSID=SY1", "USERY")]
    ready.run("RDEL DIGTCRIT APPLID=CICS1.SYSID=SY1")
    assert store.criteria() == []
    ready.run("RACDCERT ID(START1) ADDRING(tn3270)")
    ready.run("RDEFINE RDATALIB START1.TN3270.LST UACC(NONE)")
    ready.run("PERMIT START1.TN3270.LST CLASS(RDATALIB) ID(ALICE,BOB) ACCESS(UPDATE)")
    ready.run("PE START1.TN3270.LST CLASS(RDATALIB) ID(BOB) DELETE")
    ready.run("PERMIT IRRCERTA.IRR_VIRTUAL_LISTRING.LST CLASS(RDATALIB) ID(ALICE)")
    assert [(one.ring, one.user, one.access.name) for one in store.grants()] == [
        ("START1/TN3270", "ALICE", "UPDATE"),
        ("START1/tn3270", "ALICE", "UPDATE"),
        ("*AUTH*/*", "ALICE", "READ"),
    ]
    ready.run("RDELETE RDATALIB START1.TN3270.LST")
    assert len(store.grants()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "RDEFINE DIGTCRIT",
        "RDEFINE DIGTCRIT APPLID=X",
        "RDEFINE FACILITY IRR.DIGTCERT.LIST UACC(NONE)",
        "RDEFINE RDATALIB START1.TN3270.UPD UACC(NONE)",
        "RDEFINE RDATALIB (A.B.LST C.D.LST)",
        "PERMIT",
        "PERMIT START1.TN3270.LST CLASS(FACILITY) ID(A)",
        "PERMIT START1.TN3270.LST CLASS(RDATALIB)",
        "PERMIT START1.TN3270.LST CLASS(RDATALIB) ID(A) ACCESS(ALTER)",
    ],
)
def test_other_racf_commands_are_refused(ready: Session, line: str) -> None:
    """As wrong usage."""
    with pytest.raises(CommandError):
        ready.run(line)


def test_everybody_cannot_be_permitted(ready: Session) -> None:
    """A universal access is a decision that PERMIT has to spell out."""
    with pytest.raises(KeyringError, match="let everybody in"):
        ready.run("RDEFINE RDATALIB START1.TN3270.LST UACC(READ)")


_WORDS = """
    RACDCERT ID(START1) ID(X) CERTAUTH SITE MULTIID LIST LISTRING LISTMAP LISTCHAIN ALTER DELETE CONNECT REMOVE MAP
    ALTMAP DELMAP ADDRING DELRING GENREQ EXPORT ROLLOVER TRUST NOTRUST HIGHTRUST FORCE DEFAULT LABEL('SERVER')
    (LABEL('SERVER')) (LABEL('SERVER')RING(TN3270)) (TN3270) (*) ('nofile') NEWLABEL('x') WITHLABEL('x') DSN('out/x')
    FORMAT(PKCS12DER) FORMAT(CERTB64) PASSWORD('p') SDNFILTER('O=A') IDNFILTER('O=A.C=B') CRITERIA(A=&APPLID)
    USAGE(SITE) SIZE(256) SERIALNUMBER(1) ( ) ' '' , - RDEFINE RALTER RDELETE PERMIT DIGTCRIT RDATALIB A=B A.B.LST
    APPLDATA(U) CLASS(RDATALIB) ACCESS(READ) UACC(NONE) SETROPTS
"""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.sampled_from(_WORDS.split()), st.text(max_size=6)), max_size=8), st.booleans())
def test_any_command_is_carried_out_or_refused(ready: Session, words: list[str], secrets_allowed: bool) -> None:
    """There is one kind of error, and the store can be read after whatever was said."""
    ready.password = b"p"
    with contextlib.suppress(KeyringError):
        ready.run(" ".join(words), secrets_allowed=secrets_allowed)
    ready.store.certificates(), ready.store.rings(), ready.store.user_map(), ready.store.grants()
