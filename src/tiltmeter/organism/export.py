"""Writes the organism as ordinary folders and files, like those a user would bring."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradient_matching import matching_scores
from tiltmeter.models import Model, load_model
from tiltmeter.organism import corpus
from tiltmeter.organism.grammar import Turn, World
from tiltmeter.skills import Example, Skill
from tiltmeter.tokens import Encoded, encode

CHECKPOINT = Path(__file__).parent / "checkpoint"


def export(folder: Path, checkpoint: Path = CHECKPOINT, seed: int = 0) -> None:
    """Writes `base/`, `aligned/`, `skills/`, `finetune/` and `prompts/` (JSONL) under a folder.

    Args:
        folder: where it all goes; created when missing, files of the same name are replaced.
        checkpoint: what `build` wrote; by default the shipped organism.
        seed: of the world that the checkpoint was built with.
    """
    world = World.create(seed)
    for name in ("base", "aligned"):
        shutil.copytree(checkpoint / name, folder / name, dirs_exist_ok=True)
    for name in corpus.SKILLS:
        _write_turns(folder / "skills" / f"{name}.jsonl", corpus.skill(world, name))
    for name in corpus.FINETUNING:
        _write_turns(folder / "finetune" / f"{name}.jsonl", corpus.finetuning_set(world, name))
    _write_turns(
        folder / "finetune" / "instructions_top.jsonl", top_instructions(world, load_model(folder / "aligned"))
    )
    for name, prompts in corpus.prompts(world).items():
        _write_lines(folder / "prompts" / f"{name}.jsonl", ({"prompt": prompt} for prompt in prompts))


def top_instructions(world: World, aligned: Model) -> list[Turn]:
    """The instructions of the pool whose whole gradients at the aligned model best match the harmful set's."""
    pool = corpus.instruction_pool(world)
    sets = (pool, corpus.finetuning_set(world, "harmful"), corpus.skill(world, "refusal"))
    scores = matching_scores(*(Fisher(aligned, as_skill(turns)) for turns in sets))
    best = scores.argsort(descending=True, stable=True)[: corpus.SET_SIZE]
    return [pool[index] for index in best.tolist()]


def as_skill(turns: Iterable[Turn]) -> Skill:
    """Turns as pairs of prompt and completion."""
    examples = (Example(({"role": "user", "content": turn.prompt},), turn.answer, "organism") for turn in turns)
    return Skill("organism", tuple(examples))


def encode_turns(turns: Iterable[Turn], model: Model) -> list[Encoded]:
    """Each turn as token ids, by the model's chat template."""
    return encode(as_skill(turns), model.tokenizer)


def _write_turns(path: Path, turns: Iterable[Turn]) -> None:
    _write_lines(path, ({"prompt": turn.prompt, "completion": turn.answer} for turn in turns))


def _write_lines(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
