"""Exit codes of the commands; 0 means that all is done."""

SOME_FAILED = 1
"""Some of several recordings could not be separated. What nobody expected exits with 1, too."""
BAD_INPUT = 2
"""What the user can mend."""
INTERRUPTED = 130
"""After Ctrl-C: 128 and the number of the signal, as shells have it."""
