"""Judges judge answers; a run that goes on after a kill asks about what is missing only."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from tiltmeter.behaviour.canaries import EVERY, Canary, Check
from tiltmeter.behaviour.judges import Judge, Verdict
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Key
from tiltmeter.progress import track
from tiltmeter.runs.journal import Journal
from tiltmeter.runs.results import Record, VerdictRecord

Verdicts: TypeAlias = dict[Key, Verdict]
CANARY = "\0canary"  # in the place of a model, whose name cannot hold this character


class VerdictLine(Record):
    """One verdict in the journal."""

    judge: str
    model: str
    prompts: str
    row: int
    sample: int
    verdict: VerdictRecord

    @property
    def key(self) -> Key:
        """Which answer it is about."""
        return self.model, self.prompts, self.row, self.sample


class Judging:
    """Lets judges judge answers, with canaries among them.

    Args:
        canaries: of each judge; all of them come once in each hundred answers, at places drawn from the seed.
        journal: gets each verdict as it comes.

    Attributes:
        checks: what each judge said of its canaries.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        canaries: Mapping[str, Sequence[Canary]],
        journal: Journal[VerdictLine],
        seed: int = 0,
    ) -> None:
        self.checks: dict[str, list[Check]] = {name: [] for name in judges}
        self._judges, self._canaries, self._journal, self._seed = judges, canaries, journal, seed
        self._known: dict[str, Verdicts] = {name: {} for name in judges}
        for line in journal.records:
            self._known[line.judge][line.key] = Verdict(**line.verdict.model_dump())

    def judge(self, answers: Mapping[Key, Answer]) -> dict[str, Verdicts]:
        """Every judge's verdict on every answer, by the judge's name, in the order of the answers."""
        for name in self._judges:
            canaries = self._canaries[name]
            mixed = dict(_mixed(answers, canaries, self._seed))
            self._judge_missing(name, mixed)
            checked = [key for key in mixed if key[0] == CANARY]
            self.checks[name] += [Check(canaries[key[3]], self._known[name][key]) for key in checked]
        return {name: {key: found[key] for key in answers} for name, found in self._known.items()}

    def _judge_missing(self, name: str, answers: Mapping[Key, Answer]) -> None:
        known = self._known[name]
        missing = [key for key in answers if key not in known]
        if missing:
            came = self._judges[name].judge([answers[key] for key in missing])
            for place, verdict in track(came, f"{name} judges", len(missing)):
                self._journal.append(_line(name, missing[place], verdict))
                known[missing[place]] = verdict


def _mixed(answers: Mapping[Key, Answer], canaries: Sequence[Canary], seed: int) -> Iterator[tuple[Key, Answer]]:
    keys = list(answers)
    for start in range(0, len(keys), EVERY):
        batch = [(key, answers[key]) for key in keys[start : start + EVERY]]
        model, prompts, *_ = keys[start]
        batch += [((CANARY, f"{model}/{prompts}", start, n), canary.answer) for n, canary in enumerate(canaries)]
        random.Random(f"{seed} {start}").shuffle(batch)
        yield from batch


def _line(judge: str, key: Key, verdict: Verdict) -> VerdictLine:
    model, prompts, row, sample = key
    record = VerdictRecord(**vars(verdict))
    return VerdictLine(judge=judge, model=model, prompts=prompts, row=row, sample=sample, verdict=record)
