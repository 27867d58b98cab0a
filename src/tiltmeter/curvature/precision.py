"""How far low-precision arithmetic moves the coordinates: the same examples alone, and padded in a batch."""

import dataclasses

from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.skills import Skill
from tiltmeter.updates.update import Update

CHECKED = 8


def batch_dependence(fisher: Fisher, update: Update) -> float:
    """`||c_alone - c_batched|| / ||c_alone||` over all modules of the first examples: 0 in exact arithmetic.

    In float32 it is about 1e-5; in bfloat16 it is a good part of what can be trusted of a module's figure.
    """
    skill: Skill = dataclasses.replace(fisher.skill, examples=fisher.skill.examples[:CHECKED])

    def coordinates(batch_size: int) -> Tensor:
        some = Fisher(fisher.model, skill, "data", fisher.reduction, fisher.modules, batch_size, fisher.max_length)
        return some.coordinates([update])

    alone, batched = coordinates(1), coordinates(CHECKED)
    return float((alone - batched).norm() / alone.norm())
