"""What every guard is: a Trainer callback that acts right before and right after each step of the optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tiltmeter.errors import InputError
from tiltmeter.skills import Skill
from tiltmeter.training.displacement import Displacement
from tiltmeter.training.guards.kept import Kept
from tiltmeter.training.guards.trained import Trained


@dataclass(frozen=True)
class Corrections:
    """What a guard did to the optimizer's steps.

    Attributes:
        steps: how many it changed.
        share: mean over these of `||change|| / ||step||`, 1 for a step of nothing; None where it changed none.
    """

    steps: int
    share: float | None


class Guard(TrainerCallback):
    """Keeps skills while a model trains: `Trainer(..., callbacks=[guard])`, SFTTrainer and Axolotl alike.

    It hooks into the optimizer itself (torch.optim's own hooks), so what it constrains is what the optimizer really did
    to the weights: AdamW would undo a constraint on gradients. Penalties are added to gradients after they were
    clipped, and the loss that is logged stays the task's. Gradient accumulation makes no difference: hooks run once a
    step. Each process of several makes the same correction, since all see the same examples. Weights that are spread
    over processes (FSDP, ZeRO-3) are not supported.

    Args:
        skills: what is to be kept.
        tokenizer: of the model; the Trainer's `processing_class` if not given.

    Raises:
        InputError: no skill where one is needed; later, by the Trainer: no tokenizer, nothing that trains, a model that
            `Displacement` does not take, a run that goes on with a guard that never saw its start.
    """

    needs_skills = True

    def __init__(self, skills: Sequence[Skill], tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        if self.needs_skills and not skills:
            raise InputError(
                f"{type(self).__name__} needs at least one skill to keep (--guard-skill or --monitor), got none"
            )
        self.skills, self.step = tuple(skills), 0
        self._tokenizer = tokenizer
        self._trained: Trained | None = None
        self.kept: list[Kept] = []
        self.saved: dict[str, Any] = {}  # in JSON's terms; the Trainer writes it into its checkpoints
        self._handles: list[RemovableHandle] = []
        self._before: Tensor | None = None

    # What a guard does: any of these.

    def prepare(self) -> None:
        """Before the first step, at the weights where training begins or goes on."""

    def follow(self) -> None:
        """Before each step, to look at the weights."""

    def penalty(self) -> Float[Tensor, " P"] | None:
        """A gradient to add before each step."""
        return None

    def corrected(self, before: Float[Tensor, " P"]) -> Float[Tensor, " P"] | None:
        """The values that the step should have led to from `before`, or None to leave what the optimizer did."""
        return None

    def finish(self) -> None:
        """After the last step."""

    @property
    def corrections(self) -> Corrections:
        """So far; those before a checkpoint that training went on from, too."""
        count, total = self.saved.get("corrections", (0, 0.0))
        return Corrections(count, total / count if count else None)

    # How it is told.

    @property
    def trained(self) -> Trained:
        """What trains."""
        assert self._trained is not None  # since the Trainer was made
        return self._trained

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Takes the start: a checkpoint to go on from is loaded later."""
        self.watch(given["model"], given.get("processing_class"))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Hooks into the optimizer."""
        if self._trained is None:
            self._check_new(state)
            self.watch(given["model"], given.get("processing_class"))
        held: Any = state.stateful_callbacks  # a dictionary, whatever its type says
        self.saved = held.setdefault(self._key, {"args": {}, "attributes": {}})["attributes"]
        self.begin(given["optimizer"], state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Lets go of the optimizer, and makes the changes that remain to be made."""
        self.end()

    def watch(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Takes the model's present weights for the start. (A loop of one's own: `watch`, `begin`, steps, `end`.)"""
        tokenizer = self._tokenizer or tokenizer
        if tokenizer is None:
            raise InputError(f"{type(self).__name__}: the Trainer has no processing_class: give the guard a tokenizer")
        self._trained = Trained(Displacement(model, tokenizer))

    def begin(self, optimizer: Optimizer, step: int = 0) -> None:
        """From now on every step of this optimizer is guarded."""
        self.step = step
        self.kept = [Kept(skill, self.trained) for skill in self.skills]
        self.prepare()
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has no hooks
        self._handles = [
            inner.register_step_pre_hook(self._before_step),
            inner.register_step_post_hook(self._after_step),
        ]

    def end(self) -> None:
        """No step is guarded any more."""
        while self._handles:
            self._handles.pop().remove()
        self._before = None
        self.finish()

    def check_start(self) -> None:
        """For guards that use more of the start than the base model.

        Raises:
            InputError: the run goes on, but began from other weights (an adapter's A is drawn at random).
        """
        start = self.trained.fingerprint()
        if self.saved.setdefault("start", start) != start:
            raise InputError(
                f"{type(self).__name__}: the training goes on from step {self.step}, but what trains did not start as "
                "it did then: make the model with the same base, and the adapter with the same seed"
            )

    @property
    def _key(self) -> str:
        return " ".join(["tiltmeter", type(self).__name__, *(skill.name for skill in self.skills)])

    def _check_new(self, state: TrainerState) -> None:
        if state.global_step:
            raise InputError(
                f"{type(self).__name__}: step {state.global_step} of a run whose start it never saw: give it to the "
                "Trainer when that is made (callbacks=[...])"
            )

    def _before_step(self, *_: Any) -> None:
        self.follow()
        gradient = self.penalty()
        if gradient is not None:
            self.trained.add_gradient(gradient)
        self._before = self.trained.read()

    def _after_step(self, *_: Any) -> None:
        assert self._before is not None
        stepped = self.trained.read()
        values = self.corrected(self._before)
        if values is not None:
            self._count(float((values - stepped).norm()), float((stepped - self._before).norm()))
            self.trained.write(values)
        self.step += 1

    def _count(self, change: float, step: float) -> None:
        if change > 0:
            count, total = self.saved.get("corrections", (0, 0.0))
            self.saved["corrections"] = [count + 1, total + (change / step if step else 1.0)]
