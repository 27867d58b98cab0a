"""What a fine-tune is asked to do."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import NonNegativeInt

from tiltmeter.requests import load_named, run_record
from tiltmeter.runs.record import RunRecord
from tiltmeter.runs.results import Input
from tiltmeter.skills import Skill
from tiltmeter.training.recipes import Recipe
from tiltmeter.tune.templates import TEMPLATES, TemplateName
from tiltmeter.tune.watch import Watch


@dataclass(frozen=True)
class TuneSources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        base: the model to start from.
        data: files or Hub sets of prompt/completion pairs, learnt together.
        columns: their columns, where the usual names do not tell: prompt..., completion.
        template: how plain columns become a conversation; None to take them as they are.
    """

    base: str
    data: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    template: TemplateName | None = None

    def load(self) -> dict[str, Skill]:
        """The data sets by name.

        Raises:
            InputError: two of the same name, or one that cannot be read.
        """
        if self.template is None:
            return load_named(self.data, self.columns, "--data")
        template, columns = TEMPLATES[self.template], self.columns
        return load_named(self.data, columns, "--data", lambda row: template.reshape(row, columns))


@dataclass(frozen=True)
class Running:
    """How it is carried out.

    Attributes:
        dtype: of the passes; weights and optimizer stay in float32 ("bfloat16" is mixed precision).
        save_every: optimizer steps between two checkpoints, from which a killed run goes on; 0 for none.
        keep: how many checkpoints stay after the end, as models.
        report_to: trackers that the Trainer reports to.
    """

    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    save_every: NonNegativeInt = 500
    keep: NonNegativeInt = 0
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class TuneRequest:
    """One fine-tune: its sources, the recipe with the name that it began as, what watches it, how it is carried out."""

    sources: TuneSources
    recipe: Recipe
    recipe_name: str
    watch: Watch = field(default_factory=Watch)
    running: Running = field(default_factory=Running)
    seed: int = 0

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("tune", self, inputs, self.seed)
