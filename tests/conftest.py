"""Shapes are checked under pytest only: the hook must stand before the first import of the package."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from folders import CommandLine

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook("tiltmeter", "typecheck.check")

import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models and texts on disk, written once; `folder` is a copy to change."""
    from folders import write_models, write_texts

    folder = tmp_path_factory.mktemp("given")
    write_models(folder)
    write_texts(folder)
    return folder


@pytest.fixture
def folder(given: Path, tmp_path: Path) -> Path:
    """A copy of the models and texts for one test."""
    return Path(shutil.copytree(given, tmp_path / "work"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with a planted direction, sets of prompts, and a run of `direction` with a benign fine-tune beside."""
    import planted

    made = tmp_path_factory.mktemp("planted")
    planted.write(made)
    return made


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Nothing inside transformers is cast to float32."""
    from truth import float64_throughout

    with float64_throughout():
        yield


@pytest.fixture
def tiltmeter(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> "CommandLine":
    """The command line in this process."""
    from folders import CommandLine

    return CommandLine(monkeypatch, capfd)
