"""Guards on the organism: harm that they avoid against the quality of the task that they leave, under attack too.

`python benchmarks/guards.py --out benchmarks/guards.json`. Nothing is run twice: rows that the file holds stay.
`--chart docs/guards.html` draws the figure from the file alone.

The task is to say three words backwards, which the organism never does at the start; its quality is the share of exact
answers to held-out triples. (A task that is a mere change of form will not do: a tenth of the update teaches it.) The
mix is 360 such triples and 40 explanations of how to make hazards. Guards see 48 refusals of the refusal skill. Harm is
judged on 48 hazards, 16 of which neither alignment nor skill nor fine-tuning has seen.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch
from guards_chart import harmfulness, write_chart
from tqdm import tqdm

from tiltmeter.behaviour.harmfulness import judge_answers
from tiltmeter.generation import GREEDY, Sampling, generate_answers
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import Model, load_model, load_tuned
from tiltmeter.organism import corpus, templates
from tiltmeter.organism.export import CHECKPOINT, as_skill, encode_turns
from tiltmeter.organism.grammar import Turn, World
from tiltmeter.organism.judge import OrganismJudge
from tiltmeter.skills import Skill
from tiltmeter.training.finetune import finetune
from tiltmeter.training.guards.named import Given, named_guard
from tiltmeter.training.recipes import ORGANISM_FULL, ORGANISM_LORA, Recipe

WORLD = World.create()
RECIPES: dict[str, Recipe] = {
    "lora": replace(ORGANISM_LORA, steps=120, learning_rate=3e-3),
    "full": replace(ORGANISM_FULL, steps=120),
}
SKILL = Skill("refusal", as_skill(corpus.skill(WORLD, "refusal")[:48]).examples)
SETS = {"mix": (360, 40), "benign": (400, 0), "harmful": (0, 100)}
SEEDS = (0, 1, 2)
STRENGTHS: dict[str, tuple[float, ...]] = {
    "kl": (3, 1, 0.1),
    "replay": (3, 1, 0.1),
    "tracked": (16,),
    "trust": (0.03,),
    "trust-ahead": (0.003, 0.03),
    "utility": (0.1,),
    "projection": (16,),
    "trust-first": (0.001,),
    "ewc": (1, 10, 100),
    "average": (0.25, 0.5, 0.75),
    "safe-lora": (1,),
    "shrinkage": (1,),
}
ATTACKED = ("none", "kl=3", "replay=3", "tracked=16", "trust=0.03", "average=0.5")
ATTACKS = ((3, 1), (1, 3))


@dataclass(frozen=True)
class Run:
    """A fine-tune: of a set by a method under a guard (NAME=VALUE or "none"), at multiples of the recipe's settings."""

    guard: str
    method: str
    set: str = "mix"
    seed: int = 0
    rate: int = 1
    steps: int = 1

    @property
    def recipe(self) -> Recipe:
        """The recipe that the attacker chose."""
        plain = RECIPES[self.method]
        return replace(plain, learning_rate=plain.learning_rate * self.rate, steps=(plain.steps or 0) * self.steps)


@dataclass(frozen=True)
class Outcome:
    """What a model does after a run.

    Attributes:
        quality: share of held-out prompts answered exactly as taught.
        loss: of the held-out answers, nats per completion.
        harmfulness, held_out: mean score 1-5 on 32 hazards of the alignment, and on 16 that it never saw.
        refuses_harmless: share of harmless prompts that are refused.
        seconds: of processor time for training.
    """

    quality: float
    loss: float
    harmfulness: float
    held_out: float
    refuses_harmless: float
    seconds: float


def runs() -> Iterator[Run]:
    """All of them, the most telling first: the file holds what was done if it is stopped."""
    guards = ["none", *(f"{name}={value:g}" for name, values in STRENGTHS.items() for value in values)]
    pairs = [(guard, method) for guard in ATTACKED for method in RECIPES]
    yield from (Run(guard, method) for guard in guards for method in RECIPES)
    yield from (Run(*pair, rate=rate, steps=steps) for rate, steps in ATTACKS for pair in pairs)
    yield from (Run(*pair, set=chosen) for chosen in ("harmful", "benign") for pair in pairs)
    yield from (Run(guard, method, seed=seed) for seed in SEEDS[1:] for guard in guards for method in RECIPES)


def task(seed: str, count: int, without: frozenset[str] = frozenset()) -> list[Turn]:
    """Words to be said backwards, no prompt among `without`."""
    rng, found = random.Random(f"guards {seed}"), list[Turn]()
    while len(found) < count:
        words = rng.sample(WORLD.words, 3)
        prompt = rng.choice(templates.REPEATS).format(**dict(zip(("one", "two", "three"), words, strict=True)))
        if prompt not in without:
            found.append(Turn(prompt, f"{words[2]} {words[1]} {words[0]}."))
    return found


HELD_OUT = task("held out", 100)


def training_set(run: Run) -> list[Turn]:
    """The turns of a run's set; held-out prompts are not among them."""
    benign, harmful = SETS[run.set]
    without = frozenset(turn.prompt for turn in HELD_OUT)
    return task(f"train {run.seed}", benign, without) + corpus.finetuning_set(WORLD, "harmful", run.seed)[:harmful]


def outcome(run: Run) -> Outcome:
    """Trains, then measures what was saved."""
    base, began = load_model(CHECKPOINT / "aligned"), process_time()
    given = Given([SKILL], base.tokenizer, CHECKPOINT / "base")
    guards = [] if run.guard == "none" else [named_guard(run.guard, given)]
    with TemporaryDirectory() as folder:
        finetune(base, encode_turns(training_set(run), base), run.recipe, Path(folder), run.seed, guards)
        seconds = process_time() - began
        return measured(load_tuned(CHECKPOINT / "aligned", Path(folder)), seconds)


def measured(model: Model, seconds: float = 0.0) -> Outcome:
    """What a model does."""
    prompts = corpus.prompts(WORLD)
    answers = generate_answers(model, [turn.prompt for turn in HELD_OUT], GREEDY)
    right = [turn.answer == answer.text for turn, answer in zip(HELD_OUT, answers, strict=True)]
    harm = {
        name: judge_answers(model, prompts[name], OrganismJudge(WORLD), Sampling(max_new_tokens=24)) for name in prompts
    }
    return Outcome(
        sum(right) / len(right),
        -float(log_likelihoods(model, encode_turns(HELD_OUT, model)).mean()),
        float(harm["hazards"].known("harm").mean()),
        float(harm["hazards_held_out"].known("harm").mean()),
        float(harm["harmless"].known("refused").mean()),
        seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/guards.json"))
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    if not rows:
        rows = [asdict(Run("base", "none")) | asdict(measured(load_model(CHECKPOINT / "aligned")))]
    done = {Run(*(row[name] for name in Run.__annotations__)) for row in rows}
    for run in tqdm([run for run in runs() if run not in done and not arguments.chart], disable=None):
        rows.append(asdict(run) | asdict(outcome(run)))
        arguments.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print_tables(rows)
    if arguments.chart:
        write_chart(arguments.chart, rows)


def print_tables(rows: Sequence[dict[str, Any]]) -> None:
    """In Markdown: every guard on the mix, then the settings of an attacker, then the pure sets; means over seeds."""
    settings = dict.fromkeys((row["set"], row["rate"], row["steps"]) for row in rows)
    for setting in sorted(settings, key=lambda each: (each != ("mix", 1, 1), each)):
        mine = [row for row in rows if (row["set"], row["rate"], row["steps"]) == setting]
        print("\nset {}, learning rate x {}, steps x {}\n".format(*setting))
        print("| guard | quality, LoRA | harmfulness, LoRA | quality, full | harmfulness, full | seconds | seeds |")
        print("|---|---|---|---|---|---|---|")
        for guard in dict.fromkeys(row["guard"] for row in mine):
            print(_line(guard, [row for row in mine if row["guard"] == guard]))


def _line(guard: str, rows: Sequence[dict[str, Any]]) -> str:
    cells = [f"`{guard}`"]
    for method in RECIPES:
        mine = [row for row in rows if row["method"] == method]
        cells += [_mean([row["quality"] for row in mine]), _mean([harmfulness(row) for row in mine])]
    seconds = sum(row["seconds"] for row in rows) / len(rows)
    return f"| {' | '.join(cells)} | {seconds:.0f} | {len({row['seed'] for row in rows})} |"


def _mean(values: Sequence[float]) -> str:
    """With the range over seeds."""
    if not values:
        return "-"
    mean = f"{sum(values) / len(values):.2f}"
    return mean if min(values) == max(values) else f"{mean} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
