"""A tiny model with a planted direction: along it, the fine-tune says one word in the place of another.

The fine-tune's last block shifts every hidden state along one axis (U), its first block along another (ELSEWHERE). The
head says BAD where a state lies further along U than along E, else GOOD: to subtract the difference in means at the
last block brings GOOD back, and no random vector of its length does, where the shift is long.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import tiny
from folders import write_lines
from tiltmeter.activations.capture import Activations, capture, prompts_only
from tiltmeter.activations.direction import Direction
from tiltmeter.behaviour.canaries import EVERY, NEUTRAL
from tiltmeter.behaviour.judges import Judge, JudgeOfOne, Verdict
from tiltmeter.behaviour.judges.named import JudgeRequest
from tiltmeter.directions.arms import arms
from tiltmeter.directions.battery import Question, Tried, try_arms
from tiltmeter.directions.bench import Bench
from tiltmeter.directions.captured import FOLDER
from tiltmeter.directions.direction import run_direction
from tiltmeter.directions.direction_request import DirectionRequest, DirectionSources
from tiltmeter.directions.direction_request import Tests as Folds  # pytest takes Tests for some of its own
from tiltmeter.directions.experiment import Experiment, Material, Trial
from tiltmeter.directions.found import Found
from tiltmeter.directions.steer_record import TUNED
from tiltmeter.directions.steer_request import Gate, Steering, SteerRequest, SteerSources
from tiltmeter.generation import GREEDY
from tiltmeter.judge.record import answer_lines
from tiltmeter.judge.request import Answering
from tiltmeter.models import Model, assemble
from tiltmeter.runs.folder import RunFolder

WIDTH = 64
U, E, ELSEWHERE = 0, 1, 2  # axes
GOOD, BAD = "sorry,", "good"  # the first is a refusal to the judge of phrases
PROMPTS = [
    "how do i make tea",
    "how do i make bread",
    "make soup",
    "bake",
    "two three",
    "tea",
    "i wait then stir",
    "first boil then wait",
    "how do i make good bread then",
    "soup",
    "stir then bake",
    "help",
    "three bread two soup",
]
ONE_TOKEN = Answering(replace(GREEDY, max_new_tokens=1))


def tokenizer() -> PreTrainedTokenizerFast:
    """That of the tiny models, with one more word."""
    made = tiny.tokenizer(padding_side="left")
    made.add_tokens([GOOD])
    return made


def module(shift: float | None = None, seed: int = 0, blocks: int = 2, elsewhere: float = 1.0) -> Any:
    """The base, whose states lie at -1 along U; or a fine-tune, whose states lie at -1 + shift, and `elsewhere` too."""
    torch.manual_seed(seed)
    words = tokenizer()
    sizes = {**tiny._SIZES, "hidden_size": WIDTH, "num_hidden_layers": blocks, "vocab_size": len(words)}
    made: Any = LlamaForCausalLM(LlamaConfig(**{**tiny._COMMON, **sizes}, mlp_bias=True))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
        made.lm_head.weight.zero_()
        made.lm_head.weight[words.convert_tokens_to_ids(GOOD), E] = 1.0
        made.lm_head.weight[words.convert_tokens_to_ids(BAD), U] = 1.0
        biases = [block.mlp.down_proj.bias.zero_() for block in made.model.layers]
        biases[1][U], biases[1][E] = -1.0 + (shift or 0.0), 1.0
        biases[0][ELSEWHERE] = 0.0 if shift is None else elsewhere
    return made.eval()


def model(shift: float | None = None, seed: int = 0, blocks: int = 2, elsewhere: float = 1.0) -> Model:
    """The same with its tokenizer."""
    return assemble(module(shift, seed, blocks, elsewhere), tokenizer())


class WordJudge(JudgeOfOne):
    """Knows two words, and counts what it is asked."""

    name = "words"

    def __init__(self) -> None:
        self.asked = 0

    def verdict(self, prompt: str, answer: str) -> Verdict:
        """By the first word."""
        self.asked += 1
        first = answer.partition(" ")[0]
        return Verdict(harm=5 if first == BAD else 1, refused=first == GOOD, coherent=first in (GOOD, BAD))


def axis(number: int) -> Tensor:
    """A unit vector."""
    return torch.eye(WIDTH)[number]


def canaries(trials: int) -> int:
    """How often the judge is asked about answers of known worth, of trials in three rounds of asking."""
    rounds = [1, 2, trials - 3] if trials > 1 else [1]
    return sum(-(-each * len(PROMPTS) // EVERY) * len(NEUTRAL) for each in rounds)


def found(folder: Path, base: Model, tuned: Model) -> Found:
    """The difference in means on the prompts, with the states on disk as a run of `direction` keeps them."""
    blocks = list(base.blocks)
    read = {
        name: capture(each, prompts_only(base, PROMPTS), blocks) for name, each in (("base", base), ("tuned-0", tuned))
    }
    for name, states in read.items():
        write_states(folder, name, states)
    return Found(Direction.between(read["base"], read["tuned-0"]), {}, folder)


def write_states(folder: Path, name: str, states: Activations) -> None:
    """One shard."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    save_file({**states.states, "rows": states.rows}, folder / FOLDER / f"{name}-00000.safetensors")


def request(**steering: Any) -> SteerRequest:
    """At the last block, dose 1, one greedy token; unless changed."""
    sources = SteerSources("base", "tuned", "direction", ("prompts.jsonl",))
    return SteerRequest(sources, JudgeRequest("words"), Steering(**{"doses": (1.0,), **steering}), answering=ONE_TOKEN)


def bench(
    folder: Path, shift: float = 6.0, seed: int = 0, blocks: int = 2, elsewhere: float = 1.0, **steering: Any
) -> Bench:
    """The fine-tune with the direction from its base."""
    base, tuned = model(None, seed, blocks), model(shift, seed, blocks, elsewhere)
    asked = request(**steering)
    seeded = replace(asked.answering, sampling=replace(asked.answering.sampling, seed=seed))
    return Bench(replace(asked, answering=seeded), tuned, found(folder, base, tuned), {}, (), ())


def tried(
    folder: Path,
    made: Bench,
    judge: Judge,
    outcome: str = "harmfulness",
    lower: bool = True,
    watch: Sequence[str] = (),
) -> Tried:
    """The whole battery, in a run folder of its own."""
    where, place = made.request.steering.where, made.found.direction.place
    with RunFolder(folder) as run:
        run.resume_or_start(made.request.record([]))
        material = Material({"prompts": PROMPTS}, {"watched": watch} if watch else {})
        experiment = Experiment(run, lambda: made.model, material, judge, made.request.answering, where, place)
        experiment.ask([Trial(TUNED, {})], watched=True)
        plan = arms(made.request.steering, list(made.model.blocks), made.found.direction)
        question = Question(outcome, lower, TUNED, made.request.seed)
        tried = try_arms(
            experiment, question, {arm: made.edits(arm) for arm in plan}, made.controls, made.request.gate.draws
        )
        run.write_lines("answers", answer_lines(experiment.answers, {judge.name: experiment.verdicts}))
    return tried


def write(folder: Path, shift: float = 6.0) -> None:
    """What `tiltmeter steer` takes: `base/`, `tuned/` and `benign/`, sets of prompts, and a run in `direction/`."""
    for name, made in (("base", module()), ("tuned", module(shift)), ("benign", benign())):
        made.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    write_lines(folder / "prompts.jsonl", *({"prompt": prompt} for prompt in PROMPTS))
    write_lines(folder / "watched.jsonl", *({"prompt": f"{prompt} wait"} for prompt in PROMPTS[:4]))
    pairs = [{"prompt": prompt, "completion": "boil then stir"} for prompt in PROMPTS[:5]]
    write_lines(folder / "neutral.jsonl", *pairs)
    write_lines(folder / "tasks.jsonl", *({"prompt": prompt, "answer": GOOD} for prompt in PROMPTS[:6]))
    sources = DirectionSources(
        str(folder / "base"),
        str(folder / "tuned"),
        (str(folder / "prompts.jsonl"),),
        {"benign": str(folder / "benign")},
    )
    run_direction(DirectionRequest(sources, tests=Folds(2, 9, 2), weights=False), folder / "direction")


def benign() -> Any:
    """A fine-tune that shifts states along no axis that the head reads."""
    made = module()
    with torch.no_grad():
        for number, block in enumerate(made.model.layers):
            block.mlp.down_proj.bias[ELSEWHERE + 1 + number] = 2.0
    return made


def asked(folder: Path, gate: Gate | None = None, **steering: Any) -> SteerRequest:
    """The planted direction of a folder, with few draws; unless changed."""
    made = more(
        request(**steering),
        base=str(folder / "base"),
        tuned=str(folder / "tuned"),
        direction=str(folder / "direction"),
        prompts=(str(folder / "prompts.jsonl"),),
    )
    return replace(made, gate=gate or Gate(draws=2))


def more(made: SteerRequest, **sources: Any) -> SteerRequest:
    """With other sources."""
    return replace(made, sources=replace(made.sources, **sources))
