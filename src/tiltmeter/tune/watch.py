"""What watches and keeps skills while a model trains: a monitor and guards, as they are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import PositiveInt
from transformers import PreTrainedTokenizerBase, TrainerCallback

from tiltmeter.errors import InputError
from tiltmeter.models import local_folder
from tiltmeter.requests import hash_files, load_named
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.results import Input
from tiltmeter.skills import Skill
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.named import Given, named_guard
from tiltmeter.training.monitor import Monitor


@dataclass(frozen=True)
class Watch:
    """What is to be watched and kept.

    Attributes:
        skills: files or Hub sets of the skills that are watched.
        every: optimizer steps between two readings; None for as often as the monitor's budget allows.
        limits: the most that a figure may be, by its name, or by SKILL/FIGURE.
        on_limit: what is done where one is exceeded.
        guards: NAME or NAME=VALUE of each guard.
        kept: files or Hub sets of the skills that guards keep; those that are watched if none.
        unaligned: the model before it was aligned, for guards that need it.
    """

    skills: tuple[str, ...] = ()
    every: PositiveInt | None = None
    limits: dict[str, float] = field(default_factory=dict)
    on_limit: Literal["warn", "stop", "rollback"] = "warn"
    guards: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    unaligned: str | None = None

    def hashed(self) -> list[Input]:
        """What it reads, with hashes."""
        unaligned = [] if self.unaligned is None else [(self.unaligned, local_folder(self.unaligned))]
        folders = [hash_input(given, "unaligned", found) for given, found in unaligned]
        return hash_files({"skill": self.skills, "kept skill": self.kept}) + folders


@dataclass(frozen=True)
class Watchers:
    """The callbacks: guards by what they were asked for as, and a monitor of skills, if any.

    Attributes:
        kept: names of the skills that guards keep.
    """

    skills: Mapping[str, Skill]
    kept: tuple[str, ...]
    guards: Mapping[str, Guard]
    monitor: Monitor | None

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """Guards first: the monitor sees what they left."""
        return [*self.guards.values(), *([] if self.monitor is None else [self.monitor])]


def watchers(watch: Watch, columns: tuple[str, ...] | None, tokenizer: PreTrainedTokenizerBase) -> Watchers:
    """Makes them.

    Raises:
        InputError: a skill that cannot be read, a limit without a skill to watch, an unknown figure or guard.
    """
    skills = load_named(watch.skills, columns, "--monitor") if watch.skills else {}
    kept = load_named(watch.kept, columns, "--guard-skill") if watch.kept else skills
    given = Given(tuple(kept.values()), tokenizer, None if watch.unaligned is None else local_folder(watch.unaligned))
    guards = {text: named_guard(text, given) for text in watch.guards}
    if watch.limits and not skills:
        raise InputError("--limit: nothing is watched; give --monitor")
    return Watchers(skills, tuple(kept) if guards else (), guards, _monitor(watch, skills, tokenizer))


def _monitor(watch: Watch, skills: Mapping[str, Skill], tokenizer: PreTrainedTokenizerBase) -> Monitor | None:
    if not skills:
        return None
    return Monitor(
        *skills.values(), every=watch.every, limits=watch.limits, on_limit=watch.on_limit, tokenizer=tokenizer
    )
