"""What tests share."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real scans; they are not part of the repository."""
    if not DATA.is_dir():
        pytest.skip("the real scans (../shared/data) are not on this machine")
    return DATA
