"""Run the command line with `python -m vocalsep`."""

from vocalsep.cli import main

main(prog_name="vocalsep")
