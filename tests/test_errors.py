"""One exception for each thing a caller does next."""

import pytest

from octedge import errors
from octedge.errors import ModelError, OctedgeError, OutOfMemory, OutputError, ScanError, UsageError, WorkerLost


@pytest.mark.parametrize(("error", "status"), [(ScanError, 1), (OutputError, 1), (WorkerLost, 1), (UsageError, 2), (ModelError, 3)])
def test_each_error_has_its_exit_status(error: type[OctedgeError], status: int) -> None:
    assert error.exit_status == status
    assert str(error("what was got")) == "what was got"


def test_the_errors_are_one_tree_and_one_can_be_helped_by_asking_for_less() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type) and value is not OctedgeError}
    assert found == {ScanError, OutputError, UsageError, ModelError, OutOfMemory, WorkerLost}
    assert OutOfMemory.__bases__ == (ModelError,)
    assert all(error.__bases__ == (OctedgeError,) for error in found - {OutOfMemory})


def test_the_tree_drawn_at_the_top_shows_every_error_with_its_exit_status() -> None:
    lines = (errors.__doc__ or "").splitlines()
    for error in (ScanError, OutputError, UsageError, ModelError, WorkerLost):
        line = next(line for line in lines if f"+-- {error.__name__} " in line)
        assert line.endswith(f"(exit status {error.exit_status})")
