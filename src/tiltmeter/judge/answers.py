"""Models answer sets of prompts, batch by batch; a run that goes on after a kill generates what is missing only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from tiltmeter.generation import Answer, Draw, encode_prompts, generate_batch, plan_batches, read_answer
from tiltmeter.judge.request import Answering
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.runs.journal import Journal
from tiltmeter.runs.results import Record

Key: TypeAlias = tuple[str, str, int, int]  # model, set of prompts, row of the prompt, sample
Sets: TypeAlias = Mapping[str, Sequence[str]]
Within: TypeAlias = Callable[[Model], AbstractContextManager[object]]


class AnswerLine(Record):
    """One answer in the journal."""

    model: str
    prompts: str
    row: int
    sample: int
    text: str
    stop: str

    @property
    def key(self) -> Key:
        """Which answer it is."""
        return self.model, self.prompts, self.row, self.sample


class Answerer:
    """Lets models answer sets of prompts.

    Attributes:
        answers: in the order of models, sets, rows and samples.
    """

    def __init__(self, sets: Sets, answering: Answering, journal: Journal[AnswerLine]) -> None:
        self.answers: dict[Key, Answer] = {}
        self._sets, self._answering, self._journal = sets, answering, journal
        self._known = {line.key: line for line in journal.records}

    def answer(self, name: str, load: Callable[[], Model], within: Within = nullcontext) -> None:
        """One model's answers to every prompt; it is not loaded where none is missing. Each batch is kept when done.

        Args:
            name: of the model, or of the model as it is changed.
            load: gives it.
            within: the context in which it answers.
        """
        keys = list(self._keys(name))
        if any(key not in self._known for key in keys):
            model = load()
            with within(model):
                for lines in self._missing_batches(name, model):
                    self._journal.append(*lines)
                    self._known.update((line.key, line) for line in lines)
        for key in keys:
            line = self._known[key]
            self.answers[key] = Answer(self._sets[line.prompts][line.row], line.text, line.stop)

    def _keys(self, model: str) -> Iterator[Key]:
        for name, prompts in self._sets.items():
            for row in range(len(prompts)):
                yield from ((model, name, row, sample) for sample in range(self._answering.samples))

    def _missing_batches(self, name: str, model: Model) -> Iterator[list[AnswerLine]]:
        """Whole batches, even where a kill left half of one: rounding depends on the neighbours."""
        encoded = {prompts: encode_prompts(model, texts) for prompts, texts in self._sets.items()}
        plan = [
            (prompts, draws)
            for prompts, ids in encoded.items()
            for draws in plan_batches(ids, self._answering.batch_size, self._answering.samples)
            if any((name, prompts, *draw) not in self._known for draw in draws)
        ]
        for prompts, draws in track(plan, f"{name} answers"):
            found = generate_batch(model, encoded[prompts], draws, self._answering.sampling)
            texts = [self._sets[prompts][row] for row, _ in draws]
            answers = [read_answer(model, text, ids) for text, ids in zip(texts, found, strict=True)]
            yield [_line(name, prompts, draw, answer) for draw, answer in zip(draws, answers, strict=True)]


def _line(model: str, prompts: str, draw: Draw, answer: Answer) -> AnswerLine:
    row, sample = draw
    return AnswerLine(model=model, prompts=prompts, row=row, sample=sample, text=answer.text, stop=answer.stop)
