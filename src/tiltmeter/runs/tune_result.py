"""The schema of `tune`'s `result.json`: what was trained on what, how the loss fell, and what was watched."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Interval, Record, Result


class UsedRecipe(Record):
    """The recipe with every setting resolved. See `training.recipes.Recipe`.

    Attributes:
        name: the one that it began as.
        changed: the settings that are not that one's.
    """

    name: str
    changed: list[str]
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


class WatchedSkill(Record):
    """One skill at the result.

    Attributes:
        utility_loss: per completion, in nats.
        per_token: the same over all completion tokens.
    """

    examples: int
    utility_loss: Interval
    per_token: Interval


class RaisedAlarm(Record):
    """A limit was exceeded at a reading, for the first time."""

    step: int
    skill: str
    figure: str
    value: float
    limit: float


class Watched(Record):
    """What was watched; `monitor.parquet` holds the readings.

    Attributes:
        limits: by the figure's name, or SKILL/FIGURE.
        ended_by_limit: training was stopped there.
        kept_step: the step whose weights a rollback went back to.
    """

    skills: dict[str, WatchedSkill]
    limits: dict[str, float]
    on_limit: Literal["warn", "stop", "rollback"]
    alarms: list[RaisedAlarm]
    ended_by_limit: bool
    kept_step: int | None


class UsedGuard(Record):
    """A guard.

    Attributes:
        meaning: of its value.
        corrected_steps: how many of the optimizer's steps it changed; a guard that adds to gradients, or acts at the
            end, changes none.
        share: mean over these of the change's norm over the step's.
    """

    name: str
    value: float
    meaning: str
    corrected_steps: int
    share: float | None


class TuneResult(Result):
    """One fine-tune.

    Attributes:
        data: by the name of the file.
        trained, parameters: how many weights were trained, of how many.
        steps, epochs: the length; `planned_steps` unless something ended it early.
        tokens: seen over all steps, prompts included.
        model: the folder of the result inside the run folder, `form` what it holds.
        checkpoints: folders of models on the way, the newest first.
        kept_skills: those that the guards keep.
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
    watched: Watched | None = None
    guards: list[UsedGuard] = Field(default_factory=list)
    kept_skills: list[str] = Field(default_factory=list)
