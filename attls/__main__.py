"""`python -m attls` is the command `attls`."""

from attls.cli import main

main(prog_name="attls")
