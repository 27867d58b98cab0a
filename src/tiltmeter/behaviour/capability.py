"""Capability kept: accuracy on tasks with an answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from tiltmeter.behaviour.tasks import Task, is_right
from tiltmeter.bounded_intervals import score_interval
from tiltmeter.errors import InputError
from tiltmeter.generation import GREEDY, Sampling, generate_answers
from tiltmeter.intervals import Interval
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import Model
from tiltmeter.skills import Example, Skill
from tiltmeter.tokens import encode_within


@dataclass(frozen=True)
class Capability:
    """What one model gave to N tasks.

    Attributes:
        answers: its answers, or the options that it chose.
        right: 1 where the answer is right, else 0; in the order of the tasks, so that models can be compared in pairs.
    """

    answers: Sequence[str]
    right: Float[np.ndarray, " N"]

    @property
    def accuracy(self) -> Interval:
        """Share of right answers, with Wilson's interval."""
        return score_interval(self.right, np.ones(len(self.right)), (0, 1))


def task_accuracy(model: Model, tasks: Sequence[Task], sampling: Sampling = GREEDY, batch_size: int = 32) -> Capability:
    """Answers every task: those with options by choosing the most likely one, the others in words, greedily by default.

    The likelihood of an option is that of the whole answer, its end of turn included, summed over its tokens: the
    probability that the model says just that. It is not divided by the length, as some leaderboards do.

    Raises:
        InputError: no task, a prompt that leaves no room for an answer, an option longer than the model's positions.
    """
    if not tasks:
        raise InputError("expected at least one task")
    given = [""] * len(tasks)
    for rows, answer in ((_rows(tasks, True), _choose), (_rows(tasks, False), _write)):
        found = answer(model, [tasks[row] for row in rows], sampling, batch_size) if rows else []
        for row, text in zip(rows, found, strict=True):
            given[row] = text
    right = [_agrees(text, task) for text, task in zip(given, tasks, strict=True)]
    return Capability(given, np.array(right, dtype=float))


def _rows(tasks: Sequence[Task], with_options: bool) -> list[int]:
    return [row for row, task in enumerate(tasks) if bool(task.options) == with_options]


def _agrees(text: str, task: Task) -> bool:
    return text == task.answer if task.options else is_right(text, task.answer)


def _write(model: Model, tasks: Sequence[Task], sampling: Sampling, batch_size: int) -> list[str]:
    prompts = [task.prompt for task in tasks]
    return [answer.text for answer in generate_answers(model, prompts, sampling, batch_size)]


def _choose(model: Model, tasks: Sequence[Task], sampling: Sampling, batch_size: int) -> list[str]:
    del sampling  # nothing is drawn
    pairs = [(task, option) for task in tasks for option in task.options]
    examples = tuple(Example(({"role": "user", "content": task.prompt},), option, task.where) for task, option in pairs)
    likelihoods = log_likelihoods(model, encode_within(model, Skill("options", examples)), batch_size)
    each = likelihoods.split([len(task.options) for task in tasks])
    return [task.options[int(torch.argmax(values))] for task, values in zip(tasks, each, strict=True)]
