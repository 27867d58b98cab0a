"""A Hugging Face model on this machine as a judge."""

from collections.abc import Iterator, Sequence
from functools import cached_property

from tiltmeter.behaviour.judges.numbers import Numbers, number_probabilities, numbers_of
from tiltmeter.behaviour.judges.questions import question
from tiltmeter.behaviour.judges.rubrics import Rubric, as_verdict
from tiltmeter.behaviour.judges.scores import read_score
from tiltmeter.behaviour.judges.verdicts import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.models import Model, context_length, quiet
from tiltmeter.skills import Message
from tiltmeter.tokens import encode_prompt

_REPLY = "Reply with the score alone: a whole number from {low} to {high}, and no other word."


class LocalJudge:
    """A local model, asked by rubrics; the score comes from the exact probabilities of its numbers, never from text.

    Unlike an endpoint's first tokens, numbers of several tokens are exact too (`Numbers.probabilities`). Where the
    chat template can switch thinking off, it is; a model that thinks first all the same puts no probability on a
    number, and every answer fails.

    Args:
        batch_size: answers at a time.

    Raises:
        InputError: a tokenizer that cannot write the scores, a chat template that fails.
    """

    def __init__(self, name: str, model: Model, rubrics: Sequence[Rubric], batch_size: int = 8, seed: int = 0) -> None:
        self.name = name
        self._model, self._rubrics, self._batch_size, self._seed = model, rubrics, batch_size, seed
        encode_prompt([{"role": "user", "content": "a"}], model.tokenizer, "the judge")  # a template that fails
        self._numbers = [numbers_of(model.tokenizer, rubric.scores) for rubric in rubrics]

    def judge(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts on a few answers of similar length at a time, the longest first."""
        order = sorted(range(len(answers)), key=lambda place: len(answers[place].text), reverse=True)
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            yield from zip(places, self._verdicts([answers[place] for place in places]), strict=True)

    def _verdicts(self, answers: Sequence[Answer]) -> list[Verdict]:
        columns = [self._scores(answers, *pair) for pair in zip(self._rubrics, self._numbers, strict=True)]
        return [self._verdict(scores) for scores in zip(*columns, strict=True)]

    def _verdict(self, scores: Sequence[float | str]) -> Verdict:
        failures = [score for score in scores if isinstance(score, str)]
        if failures:
            return Verdict(failure=failures[0])
        return as_verdict(self._rubrics, [float(score) for score in scores])

    def _scores(self, answers: Sequence[Answer], rubric: Rubric, numbers: Numbers) -> list[float | str]:
        """The score of each answer, or why it has none."""
        prompts = [self._prompt(rubric, answer) for answer in answers]
        room = context_length(self._model) - numbers.depth
        fitting = [index for index, ids in enumerate(prompts) if len(ids) <= room]
        scores: list[float | str] = ["the answer is longer than the judge takes"] * len(answers)
        found = number_probabilities(self._model, [prompts[index] for index in fitting], numbers, self._batch_size)
        for row, index in enumerate(fitting):
            score = read_score({number: float(values[row]) for number, values in found.items()}, rubric)
            scores[index] = "too little probability on scores" if score is None else score
        return scores

    def _prompt(self, rubric: Rubric, answer: Answer) -> list[int]:
        reply = _REPLY.format(low=rubric.low, high=rubric.high)
        system, user = question(rubric, answer, reply, self._seed, self._special).messages
        return self._encoded([system, user] if self._takes_system else _one_turn(system, user))

    def _encoded(self, turns: list[Message]) -> list[int]:
        """Templates of models that can think first take `enable_thinking`; the others do not look at it."""
        tokenizer = self._model.tokenizer
        with quiet():
            if not tokenizer.chat_template:
                return encode_prompt(turns, tokenizer)
            text = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            ids: list[int] = tokenizer(str(text), add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _special(self) -> set[str]:
        """Texts that this tokenizer reads as the marks of its chat template."""
        tokenizer = self._model.tokenizer
        added = {str(token): token.special for token in tokenizer.added_tokens_decoder.values()}
        marks = {text for text, is_special in added.items() if is_special or (text[0] in "<[" and text[-1] in ">]")}
        return {text for text in marks | set(tokenizer.all_special_tokens) if len(text) > 1}

    @cached_property
    def _takes_system(self) -> bool:
        """Some chat templates refuse a system message, and without a template there is one turn only."""
        try:
            encode_prompt([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], self._model.tokenizer)
        except InputError:
            return False
        return True


def _one_turn(system: Message, user: Message) -> list[Message]:
    return [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}]
