"""TSO command text: procedures into commands, commands into operands."""

from hypothesis import given
from hypothesis import strategies as st

from attls.keyring.tso import CommandError, Operand, commands, parse


def test_a_procedure_is_taken_out_of_its_wrapping() -> None:
    """JCL around it, comments, continued lines, sequence numbers, line ends of Windows."""
    text = """\
//RINGS    JOB  CLASS=A
//STEP1    EXEC PGM=IKJEFT01
//* what follows is TSO
//SYSTSIN  DD   *
 /* the ring */
 RACDCERT ID(START1) -
   ADDRING(TN3270)                                                      00010000
 RACDCERT ID(START1) +                                                  00020000
   CONNECT(LABEL('A') RING(TN3270))\r
 SETROPTS RACLIST(DIGTRING) REFRESH
/*
//
"""
    assert commands(text) == [
        "RACDCERT ID(START1) ADDRING(TN3270)",
        "RACDCERT ID(START1) CONNECT(LABEL('A') RING(TN3270))",
        "SETROPTS RACLIST(DIGTRING) REFRESH",
    ]


def test_text_becomes_operands() -> None:
    """Quotes, doubled quotes, commas, nesting and continued lines."""
    assert parse("ID(X) -\n  ADD('it''s',B) \n LABEL( 'a (b) c' )") == [
        Operand("ID", operands=(Operand("X"),)),
        Operand("ADD", operands=(Operand("it's", True), Operand("B"))),
        Operand("LABEL", operands=(Operand("a (b) c", True),)),
    ]


@given(st.text(alphabet="RACDCERT IDL('),.=*\n-+&x", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """The reader has one kind of error."""
    try:
        for operand in parse(text):
            assert operand.text or operand.quoted
    except CommandError:
        pass
