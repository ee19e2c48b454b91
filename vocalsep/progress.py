"""How a long computation reports its progress.

A callback gets the name of the stage and the fraction of it that is done. The stages of a separation are "reading",
"f0", "masks" and, for files, "writing". An exception that the callback raises ends the
computation: this is how a program cancels one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[str, float], None]
"""Called with the name of the stage and the fraction of it, in [0, 1], that is done."""


def no_progress(stage: str, fraction: float) -> None:
    """Ignore the progress."""
