import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """Recordings that are not in the repository: $VOCALSEP_DATA, or ../shared/data beside it."""
    folder = Path(os.environ.get("VOCALSEP_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: set VOCALSEP_DATA to the folder that holds csd/, mixtures/ and crepe/")
    return folder
