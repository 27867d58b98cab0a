"""Fine-tunes of the organism that several studies measure: trained by the Trainer, in processes of one thread each."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import load_model, load_tuned
from tiltmeter.skills import load_skill
from tiltmeter.tokens import encode
from tiltmeter.training.finetune import finetune
from tiltmeter.training.recipes import Recipe

SKILLS = ("refusal", "advice")


@dataclass(frozen=True)
class Trained:
    """One fine-tune: on `set` by `recipe`, saved in `folder`, with the utility loss of each skill that followed."""

    set: str
    recipe: Recipe
    seed: int
    folder: Path
    utility_loss: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A fine-tune to make, of the organism exported to `organism`."""

    organism: Path
    set: str
    recipe: Recipe
    seed: int

    @property
    def folder(self) -> Path:
        """Where the adapter or checkpoint goes."""
        name = f"{self.set}-{self.recipe.method}-{self.recipe.learning_rate:g}-{self.seed}"
        return self.organism / "runs" / name

    def train(self) -> Trained:
        """Trains, saves, and measures the utility loss of the saved model."""
        torch.set_num_threads(1)
        folder = self.folder
        base = load_model(self.organism / "aligned")
        before = self._likelihoods(self.organism / "aligned")
        data = encode(load_skill(self.organism / "finetune" / f"{self.set}.jsonl"), base.tokenizer)
        finetune(base, data, self.recipe, folder, self.seed)
        after = self._likelihoods(folder)
        losses = {skill: float((before[skill] - after[skill]).mean()) for skill in SKILLS}
        return Trained(self.set, self.recipe, self.seed, folder, losses)

    def _likelihoods(self, folder: Path) -> dict[str, Tensor]:
        base = self.organism / "aligned"
        model = load_model(base) if folder == base else load_tuned(base, folder)
        return {
            name: log_likelihoods(
                model, encode(load_skill(self.organism / "skills" / f"{name}.jsonl"), model.tokenizer)
            )
            for name in SKILLS
        }


def train_all(runs: Sequence[Run], workers: int) -> list[Trained]:
    """All runs, in their order."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(run.train) for run in runs]
        for done in tqdm(as_completed(futures), "fine-tuning", len(futures)):
            done.result()
        return [future.result() for future in futures]


def rank(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(np.asarray(x), np.asarray(y)).statistic)
