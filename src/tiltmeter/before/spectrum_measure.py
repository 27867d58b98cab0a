"""The spectrum of one skill, of its nulls, and its rotation along checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.joint import halves, joint_gram
from tiltmeter.curvature.output_rank import OutputRank, output_ranks
from tiltmeter.curvature.rotation import Rotation, rotation, rotations
from tiltmeter.curvature.sites import Site, pooled, sites
from tiltmeter.curvature.spectrum import equalised, spectrum
from tiltmeter.curvature.text_nulls import random_text, shuffled_completions
from tiltmeter.generation import resample
from tiltmeter.models import Model, context_length, load_tuned
from tiltmeter.progress import track

DATA, SAMPLED = "data", "sampled"
NULLS = RANDOM, SHUFFLED = "random text", "shuffled completions"
SPLITS = 10


@dataclass(frozen=True)
class Spectra:
    """D drawn texts of one kind at S sites: spectra, and the Gram matrix over all modules.

    Attributes:
        equalised: the spectra once all gradients have equal length.
    """

    eigenvalues: Float[Tensor, "D S N"]
    equalised: Float[Tensor, "D S N"]
    whole: Float[Tensor, "D N N"]


@dataclass(frozen=True)
class Measured:
    """One skill.

    Attributes:
        texts: the kinds of text, "data" first.
        labels: sampled completions against the reference ones, at each site.
        splits: pairs of halves of the skill, over all modules.
    """

    fisher: Fisher
    places: list[Site]
    texts: Mapping[str, Spectra]
    labels: list[Rotation | None]
    splits: list[Rotation]
    ranks: list[OutputRank]


def measure(fisher: Fisher, dims: int, draws: int, seed: int) -> Measured:
    """Spectra of the skill, of completions of the model's own and of `draws` random texts of each kind."""
    places, model = sites(fisher), fisher.model
    limit = min(context_length(model), fisher.max_length or context_length(model))
    seeds = range(seed, seed + draws)
    sampled = fisher.of(resample(model, fisher.encoded, seed))
    randoms = (fisher.of(random_text(fisher.encoded, model.tokenizer, each)) for each in seeds)
    shuffles = (fisher.of(shuffled_completions(fisher.encoded, limit, each)) for each in seeds)
    joint = joint_gram(fisher, sampled).at(places)
    texts = {
        DATA: _stacked([joint.first]),
        SAMPLED: _stacked([joint.second]),
        RANDOM: _stacked([pooled(each.gram(), places) for each in track(randoms, RANDOM, draws)]),
        SHUFFLED: _stacked([pooled(each.gram(), places) for each in track(shuffles, SHUFFLED, draws)]),
    }
    splits = [rotation(halves(joint.first[:1], each), 0, dims) for each in range(seed, seed + SPLITS)]
    found = [each for each in splits if each is not None]
    return Measured(fisher, places, texts, list(rotations(joint, dims)), found, output_ranks(fisher))


def rotations_along(
    base: Path, checkpoints: Sequence[Path], fishers: Mapping[str, Fisher], dims: int
) -> Iterator[dict[str, list[Rotation | None]]]:
    """For each checkpoint in turn: skill -> rotation at each site. One tuned model is in memory at a time.

    Raises:
        InputError: a checkpoint that cannot be loaded, or of another architecture.
    """
    for folder in track(checkpoints, "rotation", len(checkpoints)):
        first = next(iter(fishers.values())).model
        tuned = load_tuned(base, folder, first.module.dtype, str(first.device))
        merge_variants(tuned)
        yield {name: list(_rotations_to(tuned, fisher, dims)) for name, fisher in fishers.items()}


def merge_variants(model: Model) -> None:
    """Merges the layers of LoRA variants (DoRA), whose base layers do not see the gradient of the merged weight.

    Plain LoRA adds to the output of its base layer, which therefore sees that gradient exactly.
    """
    for layer in model.module.modules():
        if isinstance(layer, LoraLayer) and layer.lora_variant:
            layer.merge()


def _rotations_to(tuned: Model, fisher: Fisher, dims: int) -> Iterator[Rotation | None]:
    return rotations(joint_gram(fisher, fisher.at(tuned)).at(sites(fisher)), dims)


def _stacked(grams: Sequence[Float[Tensor, "S N N"]]) -> Spectra:
    plain = [torch.stack([spectrum(each).eigenvalues for each in gram]) for gram in grams]
    equal = [torch.stack([spectrum(each).eigenvalues for each in equalised(gram)]) for gram in grams]
    return Spectra(torch.stack(plain), torch.stack(equal), torch.stack([gram[0] for gram in grams]))
