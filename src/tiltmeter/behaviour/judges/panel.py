"""A panel of judges asked through inspect_ai (the extra `eval`), which keeps a log for its viewer of every answer."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any, TypeAlias

from tiltmeter.behaviour.judges.questions import question
from tiltmeter.behaviour.judges.readings import NoScoreError, WrittenScore
from tiltmeter.behaviour.judges.replies import Reply
from tiltmeter.behaviour.judges.rubrics import Rubric, as_verdict
from tiltmeter.behaviour.judges.verdicts import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer

Ask: TypeAlias = Callable[[Any, Any], Awaitable[Any]]

_LONGEST_REPLY = 512
_ANSWERS_A_LOG = 256  # what a kill can lose


@dataclass(frozen=True)
class Panel:
    """Models that judge together, as inspect_ai names them ("openai/NAME", "openai-api/HOST/NAME", "anthropic/NAME").

    Attributes:
        logs: folder of the logs; `inspect view --log-dir LOGS` shows them. They hold the answers.
        workers: requests at a time to each model.
        retries: further attempts after a failed request; inspect_ai waits between them.
    """

    models: tuple[str, ...]
    logs: str
    workers: int = 8
    retries: int = 2


@dataclass(frozen=True)
class PanelJudge:
    """Each model of a panel answers each rubric; the verdict holds the median of their scores.

    Of an even number of scores, the lower of the two in the middle. A model whose request fails, or whose reply is not
    the JSON object that it was asked for, gives no score; without more than half of the panel an answer has a failure
    for its verdict. Keys are inspect_ai's (OPENAI_API_KEY, ...; it also reads a file `.env`).
    """

    name: str
    panel: Panel
    rubrics: Sequence[Rubric]
    seed: int = 0

    def judge(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts in the order of the answers, 256 at a time, each with a log of its own.

        Raises:
            InputError: the extra is not installed, a model that inspect_ai cannot make, or no score of 256 answers.
        """
        for start in range(0, len(answers), _ANSWERS_A_LOG):
            some = answers[start : start + _ANSWERS_A_LOG]
            log = _evaluated(inspect_task(some, self.panel, self.rubrics, self.seed), self.panel)
            for place, verdict in enumerate(panel_verdicts(log, self.rubrics)):
                yield start + place, verdict


def inspect_task(answers: Sequence[Answer], panel: Panel, rubrics: Sequence[Rubric], seed: int = 0) -> Any:
    """A task of inspect_ai that replays answers, to be run with `model="none/none"`: it generates nothing.

    Its scorers, `OUTCOME by MODEL` (with ":" for "/"), ask the questions of our rubrics, in which an answer is data.

    Raises:
        InputError: the extra is not installed, no model in the panel, or one that inspect_ai cannot make.
    """
    inspect_ai, dataset = _library("inspect_ai"), _library("inspect_ai.dataset")
    if not panel.models or len(set(panel.models)) < len(panel.models):
        raise InputError(f"expected a panel of one or more different models, got {list(panel.models)}")
    samples = [
        dataset.Sample(id=place + 1, input=answer.prompt, metadata={"answer": answer.text, "stop": answer.stop})
        for place, answer in enumerate(answers)
    ]
    scorers = [_scorer(rubric, name, panel, seed) for rubric in rubrics for name in panel.models]
    return inspect_ai.Task(
        dataset=dataset.MemoryDataset(samples), solver=_replay(), scorer=scorers, name="tiltmeter", fail_on_error=False
    )


def panel_verdicts(log: Any, rubrics: Sequence[Rubric]) -> list[Verdict]:
    """The verdicts in a log of `inspect_task`, in the order of the answers.

    Raises:
        InputError: no answer has a score; it says what the first one failed on.
    """
    samples = sorted(log.samples or [], key=lambda sample: int(sample.id))
    verdicts = [_verdict(list((sample.scores or {}).values()), rubrics) for sample in samples]
    if all(verdict.failure is not None for verdict in verdicts):
        cause = next((verdict.failure for verdict in verdicts), log.status)
        raise InputError(f"the panel scored none of {len(verdicts)} answers: {cause}")
    return verdicts


def _verdict(scores: Sequence[Any], rubrics: Sequence[Rubric]) -> Verdict:
    medians = []
    for rubric in rubrics:
        given = [score for score in scores if score.metadata["outcome"] == rubric.outcome]
        known = [score.value for score in given if score.reason is None]
        if not 2 * len(known) > len(given):
            reasons = [str(score.explanation) for score in given if score.reason is not None]
            return Verdict(failure=reasons[0] if reasons else "inspect_ai gave no score")
        medians.append(median_low(known))
    return as_verdict(rubrics, medians)


def _evaluated(task: Any, panel: Panel) -> Any:
    (log,) = _library("inspect_ai").eval(
        task,
        model="none/none",
        log_dir=panel.logs,
        display="none",
        log_realtime=False,
        ctl_server=False,
        acp_server=False,
    )
    return log


def _replay() -> Any:
    """The solver: what our model answered takes the place of what inspect's would."""
    model = _library("inspect_ai.model")

    async def solve(state: Any, generate: Any) -> Any:
        stop = "max_tokens" if state.metadata["stop"] == "length" else "stop"
        state.output = model.ModelOutput.from_content("tiltmeter", state.metadata["answer"], stop_reason=stop)
        state.messages.append(state.output.message)
        return state

    return _library("inspect_ai.solver").solver(name="replay")(lambda: solve)()


def _scorer(rubric: Rubric, name: str, panel: Panel, seed: int) -> Any:
    library, judge, reading = _library("inspect_ai.scorer"), _judge(name, panel), WrittenScore()
    config = _library("inspect_ai.model").GenerateConfig(temperature=0, max_tokens=_LONGEST_REPLY)

    asks = {"outcome": rubric.outcome, "model": name}

    async def score(state: Any, target: Any) -> Any:
        answer = Answer(state.input_text, state.metadata["answer"], state.metadata["stop"])
        asked = question(rubric, answer, reading.instruction(rubric), seed)
        try:
            output = await judge.generate(_messages(asked.messages), config=config)
            value = reading.read(_reply(output), rubric, asked.nonce)
            return library.Score(value=value, explanation=output.completion, metadata=asks)
        except NoScoreError as error:
            reason = str(error)
        except Exception as error:  # each provider raises its own; their messages can hold a key
            reason = f"the request failed ({type(error).__name__})"
        return library.Score.unscored(reason="no score", explanation=reason, metadata=asks)

    metrics = [library.mean(), library.stderr()]
    label = f"{rubric.outcome} by {name.replace('/', ':')}"  # inspect_ai takes what is before "/" for a package
    return library.scorer(metrics=metrics, name=label)(lambda: score)()


def _judge(name: str, panel: Panel) -> Any:
    model = _library("inspect_ai.model")
    config = model.GenerateConfig(max_connections=panel.workers, max_retries=panel.retries)
    try:
        return model.get_model(name, config=config, memoize=False)
    except Exception as error:  # an unknown provider, a missing key or client: each provider's own error
        raise InputError(f"inspect_ai cannot make the model {name} ({type(error).__name__})") from None


def _messages(messages: Sequence[dict[str, str]]) -> list[Any]:
    model = _library("inspect_ai.model")
    kinds = {"system": model.ChatMessageSystem, "user": model.ChatMessageUser}
    return [kinds[message["role"]](content=message["content"]) for message in messages]


def _reply(output: Any) -> Reply:
    """As our own client would have read it."""
    stops = {"max_tokens": "length", "model_length": "length", "content_filter": "content_filter"}
    return Reply.model_validate(
        {"message": {"content": output.completion}, "finish_reason": stops.get(output.stop_reason)}
    )


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise InputError("a panel needs inspect_ai: pip install 'tiltmeter[eval]'") from None
