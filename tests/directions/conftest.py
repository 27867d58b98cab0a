"""Models with a planted direction on disk, for the tests of this folder."""

from pathlib import Path

import pytest

import planted


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, sets of prompts, and a run of `direction` with a benign fine-tune beside."""
    made = tmp_path_factory.mktemp("planted")
    planted.write(made)
    return made
