"""All that is read and measured before a fine-tune begins, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from tiltmeter.models import Model
from tiltmeter.skills import Skill
from tiltmeter.tokens import Encoded, encode_within
from tiltmeter.training.finetune import TrainingLog
from tiltmeter.tune.data import DataSet, encode_sets
from tiltmeter.tune.measure import Fit, measured
from tiltmeter.tune.request import TuneRequest
from tiltmeter.tune.watch import Watchers, watchers


@dataclass(frozen=True)
class Prepared:
    """Before it begins.

    Attributes:
        model: the base, which the training changes.
        weights: how many it has.
        data: what is learnt; `samples` of it are measured.
        watchers: what watches and keeps skills.
        skills: those that are watched.
        before: how the base fits samples and skills.
    """

    model: Model
    weights: int
    data: dict[str, DataSet]
    samples: dict[str, list[Encoded]]
    watchers: Watchers
    skills: dict[str, list[Encoded]]
    before: Fit

    @property
    def examples(self) -> list[Encoded]:
        """What is learnt, all sets together."""
        return [example for each in self.data.values() for example in each.encoded]


@dataclass(frozen=True)
class Trained:
    """After its end.

    Attributes:
        after: how the result fits what was measured before.
        checkpoints: those that stay, by their place in the run folder.
    """

    prepared: Prepared
    log: TrainingLog
    after: Fit
    checkpoints: list[str]


def prepare(request: TuneRequest, model: Model, sets: Mapping[str, Skill]) -> Prepared:
    """Reads what the request names.

    Raises:
        InputError: an example or a skill that cannot be used, an unknown guard or limit.
    """
    data = encode_sets(model, sets, request.recipe.max_length)
    samples = {name: each.sample(request.seed) for name, each in data.items()}
    watching = watchers(request.watch, request.sources.columns, model.tokenizer)
    skills = {name: encode_within(model, skill) for name, skill in watching.skills.items()}
    weights = sum(parameter.numel() for parameter in model.module.parameters())
    return Prepared(model, weights, data, samples, watching, skills, measured(model, samples, skills))
