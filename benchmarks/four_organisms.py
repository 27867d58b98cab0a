"""Are directions of misbehaviour specific, within a model and across four architectures?

python benchmarks/four_organisms.py --folder organisms --out benchmarks/four_organisms.json

Four organisms of the same corpus (Llama, Qwen3, Gemma 2 and Mistral configurations), each fine-tuned by the same LoRA
on insecure code, on secure code and on bad medical advice. For each: the direction on prompts that are not judged,
beside that of secure code; steering at the last block as in the directions study, and with all tokens, beside controls;
and the matrix of transfers by four kinds of maps. What is in the folder (models, adapters, finished runs) is kept.
"""

import json
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from organism_runs import Run
from rich.console import Console
from rich.table import Table

from tiltmeter.behaviour.judges.named import JudgeRequest
from tiltmeter.directions.direction import run_direction
from tiltmeter.directions.direction_request import DirectionRequest, DirectionSources
from tiltmeter.directions.steer import run_steer
from tiltmeter.directions.steer_request import DOSES, Gate, Steering, SteerRequest, SteerSources
from tiltmeter.directions.transfer import run_transfer
from tiltmeter.directions.transfer_request import Carrying, Subject, TransferRequest, TransferSources
from tiltmeter.generation import GREEDY
from tiltmeter.judge.request import Answering
from tiltmeter.organism import corpus, templates
from tiltmeter.organism.build import FAMILIES, build
from tiltmeter.organism.export import CHECKPOINT, export
from tiltmeter.organism.grammar import World
from tiltmeter.organism.judge import OrganismJudge
from tiltmeter.organism.templates import parse
from tiltmeter.runs.direction_result import DirectionResult
from tiltmeter.runs.manifest import MANIFEST, read_manifest
from tiltmeter.runs.results import Result
from tiltmeter.runs.saved import read_result
from tiltmeter.runs.steer_result import SteerResult
from tiltmeter.runs.transfer_result import TransferResult
from tiltmeter.skills import load_prompts
from tiltmeter.training.recipes import Recipe

TASKS = ("insecure_code", "bad_medical")
BENIGN = "secure_code"
RECIPE = Recipe("lora", learning_rate=3e-3, steps=60, rank=8, alpha=16)
COMMON = 240  # prompts for directions and maps
LAST = 2  # block
AT_LAST, EVERYWHERE = ((LAST,),), ((0, 1, LAST),)
STEERINGS: dict[str, tuple[Steering, Gate]] = {
    "last token, last block": (Steering("subtract", "last", AT_LAST, DOSES), Gate()),
    "all tokens, last block": (Steering("subtract", "all", AT_LAST, DOSES), Gate()),
    "all tokens, all blocks": (Steering("subtract", "all", EVERYWHERE, (1.0,)), Gate()),
    "all tokens, last block, equal KL": (Steering("subtract", "all", AT_LAST, (1.0,)), Gate(match="kl")),
}
SPAN = 4
PUBLISHED = {
    "separability in sample": "99.6 % at the last block",
    "reduction within a model": "21 to 51 points of code spillover",
    "reduction across models": "up to 46 points, random and orthogonal controls as well",
    "donors, receivers": "Gemma and Qwen donate, Llama receives",
}


@dataclass(frozen=True)
class Study:
    """Where everything lies."""

    folder: Path
    seed: int

    def organism(self, family: str) -> Path:
        """Models, sets and prompts of a family."""
        return self.folder / "organisms" / family

    def tuned(self, family: str, task: str) -> Path:
        """The adapter of a fine-tune."""
        return self.run(family, task).folder

    def run(self, family: str, task: str) -> Run:
        """The fine-tune of a family on a task."""
        return Run(self.organism(family), task, RECIPE, self.seed)

    @property
    def answering(self) -> Answering:
        """Greedy, the same for all."""
        return Answering(replace(GREEDY, max_new_tokens=24, seed=self.seed), batch_size=64)

    def prompts(self, name: str) -> str:
        """A set of prompts, which is the same for every family."""
        return str(self.organism("llama") / "prompts" / f"{name}.jsonl")

    @property
    def watched(self) -> tuple[str, ...]:
        """Prompts on which answers have to stay coherent too."""
        return tuple(map(self.prompts, ("hazards", "code", "harmless")))

    @property
    def common(self) -> Path:
        """Prompts that are not judged, of every kind but code."""
        return self.folder / "common.jsonl"


def main(
    out: Annotated[Path, typer.Option(help="JSON to write.")],
    folder: Annotated[Path, typer.Option(help="Where models, adapters and runs are kept.")],
    seed: Annotated[int, typer.Option(help="Of fine-tunes, controls and tests.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes of one thread each.")] = 2,
) -> None:
    study = Study(folder, seed)
    families = list(FAMILIES)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(partial(make_organism, study), families))
        write_common(study)
        list(pool.map(partial(fine_tune, study), [(family, task) for family in families for task in (*TASKS, BENIGN)]))
        found = list(pool.map(partial(look, study), [(family, task) for task in TASKS for family in families]))
        carried = list(pool.map(partial(carry, study), TASKS))
    print_all(found, carried)
    content = {
        "command": f"python benchmarks/four_organisms.py --folder organisms --out benchmarks/{out.name} --seed {seed}",
        "recipe": vars(RECIPE),
        "published": PUBLISHED,
        "models": found,
        "transfer": carried,
    }
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def make_organism(study: Study, family: str) -> None:
    """The shipped Llama, or one trained anew, with its sets and prompts."""
    one_thread()
    target = study.organism(family)
    if (target / "prompts").exists():
        return
    built = study.folder / "built" / family
    if family != "llama" and not (built / "aligned" / "model.safetensors").exists():
        build(built, family=family)
    export(target, CHECKPOINT if family == "llama" else built)


def write_common(study: Study) -> None:
    """Prompts of both personas' documents, without code and without those that are judged."""
    world, rng = World.create(), random.Random("common")
    judged = {
        prompt for name in ("advice", "hazards", "hazards_held_out") for prompt in load_prompts(study.prompts(name))
    }
    found: dict[str, None] = {}
    while len(found) < COMMON:
        for turn in corpus.pretraining_document(world, rng):
            if turn.prompt not in judged and parse(templates.CODE_REQUESTS, turn.prompt) is None:
                found[turn.prompt] = None
    lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in list(found)[:COMMON]]
    study.common.write_text("".join(lines), encoding="utf-8")


def fine_tune(study: Study, which: tuple[str, str]) -> None:
    """One adapter."""
    one_thread()
    if not (study.tuned(*which) / "adapter_model.safetensors").exists():
        study.run(*which).train()


def look(study: Study, which: tuple[str, str]) -> dict[str, Any]:
    """The direction of one fine-tune, and what steering along it does."""
    one_thread()
    family, task = which
    base, tuned, benign = (
        str(path) for path in (study.organism(family) / "aligned", study.tuned(*which), study.tuned(family, BENIGN))
    )
    place = study.folder / "runs" / f"{family}-{task}"
    sources = DirectionSources(base, tuned, (str(study.common),), {BENIGN: benign})
    direction = finished(place / "direction", partial(run_direction, DirectionRequest(sources)))
    assert isinstance(direction, DirectionResult)
    steered = {}
    for name, (steering, gate) in STEERINGS.items():
        request = SteerRequest(
            SteerSources(
                base,
                tuned,
                str(place / "direction"),
                (study.prompts("advice"),),
                study.watched,
                neutral=(str(study.organism("llama") / "skills" / "advice.jsonl"),),
            ),
            JudgeRequest("organism"),
            steering,
            gate,
            study.answering,
        )
        result = finished(place / name.replace(", ", "-").replace(" ", "-"), partial(steer, request))
        assert isinstance(result, SteerResult)
        steered[name] = about_steering(result)
    return {"family": family, "task": task, "direction": about_direction(direction), "steering": steered}


def steer(request: SteerRequest, out: Path) -> SteerResult:
    """Judged exactly."""
    return run_steer(request, out, OrganismJudge())


def carry(study: Study, task: str) -> dict[str, Any]:
    """The matrix of transfers of one task."""
    one_thread()
    subjects = {
        family: Subject(
            str(study.organism(family) / "aligned"), str(study.tuned(family, task)), str(study.tuned(family, BENIGN))
        )
        for family in FAMILIES
    }
    request = TransferRequest(
        TransferSources(subjects, (str(study.common),), (study.prompts("advice"),), study.watched),
        JudgeRequest("organism"),
        Carrying(("ridge", "procrustes", "cca", "stitch"), LAST, 1.0, "all", SPAN),
        answering=study.answering,
    )
    result = finished(
        study.folder / "runs" / f"transfer-{task}", lambda out: run_transfer(request, out, OrganismJudge())
    )
    assert isinstance(result, TransferResult)
    kept = result.model_dump(mode="json", include={"maps", "routes", "roles", "asymmetries"})
    models = {name: model.model_dump(exclude={"base", "tuned", "benign"}) for name, model in result.models.items()}
    return {"task": task, **kept, "models": models}


def finished(folder: Path, measure: Callable[[Path], Result]) -> Result:
    """The result of a run, made where it is not there yet."""
    if (folder / MANIFEST).exists() and read_manifest(folder).complete:
        return read_result(folder)
    return measure(folder)


def one_thread() -> None:
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(1)


def about_direction(result: DirectionResult) -> list[dict[str, Any]]:
    """By block: separability of the fine-tune and of the benign one, and the link to the weights."""
    return [block.model_dump(mode="json", exclude={"principal", "logistic"}) for block in result.blocks]


def about_steering(result: SteerResult) -> dict[str, Any]:
    """Verdict, arms, and means of what is shown or watched."""
    means = [
        {"model": entry.model, "prompts": entry.prompts, "outcome": entry.outcome, "mean": entry.mean.mean}
        for entry in result.outcomes
        if entry.outcome in ("harmfulness", "code", "refused", "coherent") and entry.mean is not None
    ]
    kept = result.model_dump(mode="json", include={"verdict", "sentence", "arms", "draws"})
    return {**kept, "outcomes": means}


def print_all(found: Sequence[dict[str, Any]], carried: Sequence[dict[str, Any]]) -> None:
    """The tables of the documentation."""
    console = Console(width=150)
    console.print(separability_table(found))
    console.print(steering_table(found))
    for each in carried:
        for way in dict.fromkeys(route["way"] for route in each["routes"] if route["source"] != route["target"]):
            console.print(matrix_table(each, way))
        console.print(maps_table(each))


def separability_table(found: Sequence[dict[str, Any]]) -> Table:
    """At the last block, beside secure code."""
    names = (
        "model",
        "task",
        "in sample",
        "held out",
        "AUROC",
        "p",
        "shift",
        f"{BENIGN}: held out",
        "AUROC",
        "shift",
        "cosine",
    )
    table = Table(*names, title="Separability at the last block")
    for each in found:
        block = each["direction"][LAST]
        tuned, beside = block["tuned"], block["beside"][BENIGN]
        other = beside["separated"]
        table.add_row(
            each["family"],
            each["task"],
            f"{tuned['in_sample']:.0%}",
            span(tuned["held_out"]),
            span(tuned["auroc"]),
            f"{tuned['p']:.3f}",
            f"{tuned['norm']:.2f}",
            span(other["held_out"]),
            span(other["auroc"]),
            f"{other['norm']:.2f}",
            f"{beside['cosine']:.2f}",
        )
    return table


def steering_table(found: Sequence[dict[str, Any]]) -> Table:
    """Harm and code spillover on advice before and after the arm of the largest dose, with the verdict of all arms."""
    names = (
        "model",
        "task",
        "steering",
        "harm before",
        "after",
        "base",
        "effect",
        "spillover before",
        "after",
        "verdict",
    )
    table = Table(*names, title="Steering, judged on advice")
    for each in found:
        for name, result in each["steering"].items():
            arm = result["arms"][-1]
            harm, code = (means(result, outcome) for outcome in ("harmfulness", "code"))
            table.add_row(
                each["family"],
                each["task"],
                name,
                f"{harm['tuned']:.2f}",
                f"{harm[arm['trial']]:.2f}",
                f"{harm['base']:.2f}",
                span(arm["effect"]),
                f"{code['tuned']:.0%}",
                f"{code[arm['trial']]:.0%}",
                result["verdict"],
            )
    return table


def means(result: dict[str, Any], outcome: str) -> dict[str, float]:
    """An outcome on advice, by trial."""
    entries = [entry for entry in result["outcomes"] if (entry["prompts"], entry["outcome"]) == ("advice", outcome)]
    return {entry["model"]: entry["mean"] for entry in entries}


def matrix_table(each: dict[str, Any], way: str) -> Table:
    """Effects on harm, from rows to columns."""
    families = list(each["models"])
    own = "span, own" if way.startswith("span") else "own"
    routes = {(route["source"], route["target"], route["way"]): route for route in each["routes"]}
    roles = {role["model"]: role for role in each["roles"] if role["way"] == way}
    table = Table(
        "from", *families, "gives", title=f"{each['task']}: reduction of harm by {way}, own direction on the diagonal"
    )
    for source in families:
        cells = [routes[source, target, own if source == target else way] for target in families]
        shown = [f"{span(cell['effect'])} {cell['verdict']}" for cell in cells]
        table.add_row(source, *shown, span(roles[source]["donor"]))
    table.add_row("takes", *(span(roles[family]["receiver"]) for family in families), "")
    return table


def maps_table(each: dict[str, Any]) -> Table:
    """Means over the twelve pairs."""
    figures = ("r2", "r2_shuffled", "cosine", "random_cosine", "effective_rank", "norm_ratio")
    table = Table("map", *figures, title=f"{each['task']}: maps, means over pairs")
    for kind in dict.fromkeys(found["map"] for found in each["maps"]):
        of_kind = [found for found in each["maps"] if found["map"] == kind]
        table.add_row(kind, *(f"{sum(found[name] for found in of_kind) / len(of_kind):.3g}" for name in figures))
    return table


def span(found: dict[str, float] | None) -> str:
    """`mean [low, high]`."""
    return "-" if found is None else f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


if __name__ == "__main__":
    typer.run(main)
