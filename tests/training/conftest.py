"""A study whose one run is trained, once for all tests of a process."""

import shutil
from pathlib import Path

import pytest

from jax_sft.training.loop import train
from tests.training.tiny import study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a study whose one run went through undisturbed."""
    root = tmp_path_factory.mktemp("finished")
    train(*study(root))
    return root


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study, to do damage to."""
    return shutil.copytree(finished, tmp_path / "again")
