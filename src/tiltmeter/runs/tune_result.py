"""The schema of `tune`'s `result.json`: what was trained on what, how the loss fell, and what was watched."""

from typing import Literal

from tiltmeter.runs.results import Interval, Record, Result


class UsedRecipe(Record):
    """The recipe with every setting resolved; `name` is the one that it began as. See `training.recipes.Recipe`."""

    name: str
    method: Literal["full", "lora"]
    learning_rate: float
    epsilon: float
    schedule: Literal["constant", "linear"]
    steps: int | None
    epochs: float | None
    batch_size: int
    accumulation: int
    max_length: int
    rank: int | None
    alpha: float | None
    dropout: float | None


class LearntSet(Record):
    """One fine-tuning set.

    Attributes:
        tokens: of all its examples, prompts included.
        truncated: examples that were longer than `max_length` and lost their end.
        sampled: how many examples the losses are measured on.
        before, after: mean negative log-likelihood per completion token in nats, at the base and at the result.
        change: after less before, of the same examples.
    """

    examples: int
    tokens: int
    truncated: int
    sampled: int
    before: Interval
    after: Interval
    change: Interval


class Speed(Record):
    """How fast it went, which no two runs share: since step `since` (of a checkpoint it went on from, else 0)."""

    since: int
    seconds: float
    tokens_per_second: float | None


class TuneResult(Result):
    """One fine-tune.

    Attributes:
        data: by the name of the file.
        trained, parameters: how many weights were trained, of how many.
        steps, epochs: the length; `planned_steps` unless something ended it early.
        tokens: seen over all steps, prompts included.
        model: the folder of the result inside the run folder, `form` what it holds.
        checkpoints: folders of models on the way, the newest first.
    """

    verb: Literal["tune"] = "tune"
    recipe: UsedRecipe
    data: dict[str, LearntSet]
    trained: int
    parameters: int
    steps: int
    planned_steps: int
    epochs: float
    tokens: int
    model: str
    form: Literal["adapter", "checkpoint"]
    checkpoints: list[str]
    speed: Speed
