"""Models answer sets of prompts, batch by batch; a run that goes on after a kill generates what is missing only."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from tiltmeter.generation import Answer, Draw, encode_prompts, generate_batch, plan_batches, read_answer
from tiltmeter.judge.request import Answering
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.runs.journal import Journal
from tiltmeter.runs.results import Record

Key: TypeAlias = tuple[str, str, int, int]  # model, set of prompts, row of the prompt, sample
Sets: TypeAlias = Mapping[str, Sequence[str]]


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


def answer_all(
    load: Mapping[str, Callable[[], Model]], sets: Sets, answering: Answering, journal: Journal[AnswerLine]
) -> dict[Key, Answer]:
    """Every model's answers to every prompt, in the order of models, sets, rows and samples.

    Args:
        load: by the model's name; a model with nothing left to answer is not loaded.
        journal: gets each batch when it is done.
    """
    known = {line.key: line for line in journal.records}
    for name, load_model in load.items():
        if not all(key in known for key in _keys(name, sets, answering.samples)):
            for lines in _missing_batches(load_model(), name, sets, answering, known.keys()):
                journal.append(*lines)
                known.update((line.key, line) for line in lines)
    keys = [key for name in load for key in _keys(name, sets, answering.samples)]
    return {key: Answer(sets[key[1]][key[2]], known[key].text, known[key].stop) for key in keys}


def _keys(model: str, sets: Sets, samples: int) -> Iterator[Key]:
    for name, prompts in sets.items():
        yield from ((model, name, row, sample) for row in range(len(prompts)) for sample in range(samples))


def _missing_batches(
    model: Model, name: str, sets: Sets, answering: Answering, known: Collection[Key]
) -> Iterator[list[AnswerLine]]:
    """Whole batches, even where a kill left half of one: rounding depends on the neighbours."""
    encoded = {prompts: encode_prompts(model, texts) for prompts, texts in sets.items()}
    plan = [
        (prompts, draws)
        for prompts, ids in encoded.items()
        for draws in plan_batches(ids, answering.batch_size, answering.samples)
        if any((name, prompts, *draw) not in known for draw in draws)
    ]
    for prompts, draws in track(plan, f"{name} answers"):
        found = generate_batch(model, encoded[prompts], draws, answering.sampling)
        answers = [read_answer(model, sets[prompts][row], ids) for (row, _), ids in zip(draws, found, strict=True)]
        yield [_line(name, prompts, draw, answer) for draw, answer in zip(draws, answers, strict=True)]


def _line(model: str, prompts: str, draw: Draw, answer: Answer) -> AnswerLine:
    row, sample = draw
    return AnswerLine(model=model, prompts=prompts, row=row, sample=sample, text=answer.text, stop=answer.stop)
