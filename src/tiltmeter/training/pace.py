"""How often a monitor measures, decided from counts of tokens alone, so that every run decides the same."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import TrainingArguments

from tiltmeter.errors import InputError

BUDGET = 0.05  # of the training's work

# Work on a token of the skill, in units of the training's work on a token; see benchmarks/monitor_cost.py.
START = 3.0  # the Gram matrix, the base's likelihoods
READING = 2.0  # a forward pass as it is, a forward and a backward pass at the base
ROTATION = 4.0  # gradients of every example, at the base and as it is

SAMPLE = 64  # rows of the training set that are looked at


@dataclass(frozen=True)
class Pace:
    """The steps at which a monitor measures: multiples of `every`, the last one, and early ones.

    Attributes:
        every: steps between two readings.
        early: measure at powers of two below `every` too.
        rotates: every so many steady readings has the rotation, and the last one; 0 for none.
        last: the training's last step.
        share: the work of the monitor as a share of the training's; None where nobody counted.
    """

    every: int
    early: bool
    rotates: int
    last: int
    share: float | None = None

    @property
    def fits(self) -> bool:
        """Is it within the budget, as far as anybody counted?"""
        return self.share is None or self.share <= BUDGET

    def __str__(self) -> str:
        early = ", earlier at powers of two" if self.early else ""
        cost = "" if self.share is None else f", about {self.share:.1%} of the training's work"
        advice = "" if self.fits else " (give a skill of fewer tokens, or every=STEPS)"
        return f"a reading every {self.every} steps{early}, and after the last of {self.last}{cost}{advice}"

    def is_due(self, step: int) -> bool:
        """Is there a reading after this step?"""
        early = self.early and step < self.every and step & (step - 1) == 0
        return step % self.every == 0 or step >= self.last or early

    def has_rotation(self, step: int) -> bool:
        """Has the reading after this step the rotation?"""
        return self.rotates > 0 and (step % (self.every * self.rotates) == 0 or step >= self.last)


def default_pace(steps: int, tokens_a_step: float, skill_tokens: int, rotates: int) -> Pace:
    """As often as `BUDGET` allows, and after the last step whatever it costs.

    With readings at powers of two before, where they fit in too and do not halve the steady pace.

    Args:
        steps: of the training.
        tokens_a_step: that a process trains on in one step, padding included.
        skill_tokens: in the examples of all skills.
        rotates: see `Pace`.
    """
    unit = skill_tokens / tokens_a_step  # a pass over the skills, in steps
    most = BUDGET * steps / unit
    paces = [_densest(steps, most, early, rotates) for early in (True, False)]
    fitting = [pace for pace in paces if _work(pace) <= most and pace.every <= 2 * paces[-1].every]
    chosen = fitting[0] if fitting else Pace(steps, False, rotates, steps)
    return replace(chosen, share=_work(chosen) * unit / steps)


def _densest(steps: int, most: float, early: bool, rotates: int) -> Pace:
    """The smallest distance between readings whose work is no more than so much."""
    every = min(steps, max(1, math.floor(steps * READING / most)))
    while every < steps and _work(Pace(every, early, rotates, steps)) > most:
        every += 1
    return Pace(every, early, rotates, steps)


def _work(pace: Pace) -> float:
    """In units of a pass of training over the skills' tokens."""
    steady = math.ceil(pace.last / pace.every)
    early = (pace.every - 1).bit_length() if pace.early else 0
    rotations = math.ceil(steady / pace.rotates) if pace.rotates else 0
    return START + (steady + early) * READING + rotations * ROTATION


def tokens_a_step(dataloader: Any, args: TrainingArguments) -> float:
    """Tokens that a process trains on in one optimizer step, padding included, from a sample of the training set.

    Raises:
        InputError: a data set without a length, or one whose batches have no `input_ids`.
    """
    dataset, batch = dataloader.dataset, args.train_batch_size
    if not hasattr(dataset, "__len__"):
        raise InputError("the training set is a stream, so its tokens cannot be counted: give every=STEPS")
    count = len(dataset)
    rows = [place * count // min(SAMPLE, count) for place in range(min(SAMPLE, count))]
    with torch.random.fork_rng(devices=[]):
        batches = [
            dataloader.collate_fn([dataset[row] for row in rows[start : start + batch]])
            for start in range(0, len(rows), batch)
        ]
    if "input_ids" not in batches[0]:
        raise InputError(f"the training batches have no input_ids but {list(batches[0])}: give every=STEPS")
    tokens = sum(each["input_ids"].numel() for each in batches)
    return float(tokens / len(rows) * batch * args.gradient_accumulation_steps)
