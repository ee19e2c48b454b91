"""`python -m vocalsep` is `vocalsep`."""

from vocalsep.cli import main

main(prog_name="vocalsep")
