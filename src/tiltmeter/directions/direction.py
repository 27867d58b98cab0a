"""The direction from a base to a fine-tune of it, from files to a run folder."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from tiltmeter.activations.capture import Activations, prompts_only
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.direction_files import GGUF, has_control_vector
from tiltmeter.activations.first_order import first_order_shift
from tiltmeter.activations.hook_points import chosen_blocks
from tiltmeter.activations.separation.separability import best_p
from tiltmeter.activations.writing import residual_writers, written_shares
from tiltmeter.directions.captured import Capturing, Reading
from tiltmeter.directions.direction_record import TUNED, Weights, block_record, separate
from tiltmeter.directions.direction_request import DirectionRequest, DirectionSources
from tiltmeter.errors import InputError
from tiltmeter.models import (
    Model,
    chat_template_hash,
    context_length,
    has_tokenizer,
    load_model,
    load_tokenizer,
    load_tuned,
    local_folder,
)
from tiltmeter.requests import DTYPES, hash_files, load_named, load_named_prompts, read_update
from tiltmeter.runs.direction_result import DirectionResult
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input
from tiltmeter.tokens import Encoded, encode_within
from tiltmeter.updates.update import Update

SAVED = "direction"
DIRECTION = "direction.safetensors"
BESIDE = "beside-"
CONTROL_VECTOR = f"direction{GGUF}"
FEW = 50  # prompts


def run_direction(request: DirectionRequest, out: Path) -> DirectionResult:
    """Reads the models, measures, writes the run folder `out`; goes on with this very run where it was killed there.

    Raises:
        InputError: any input that cannot be used, a fine-tune that did nothing, or `out` is no place for a run.
    """
    sources = request.sources
    _check_names(sources)
    base_folder = local_folder(sources.base)
    tuned = {name: local_folder(each) for name, each in {TUNED: sources.tuned, **sources.beside}.items()}
    with RunFolder(out) as run:
        inputs = _inputs(sources, base_folder, list(tuned.values()))
        base = load_model(base_folder, DTYPES[request.dtype], request.device)
        texts, repeated = load_texts(base, sources.prompts, request.reading)
        _check_count(request, len(texts))
        blocks = _in_order(base, chosen_blocks(base, list(request.blocks) if request.blocks else None))
        update = _read_update(request, base_folder, tuned[TUNED])
        run.resume_or_start(request.record(inputs))
        capturing = Capturing(run, request.reading)
        before = capturing.read("base", lambda: base, texts, blocks)
        after = {
            name: capturing.read(f"tuned-{number}", partial(_load, request, base, folder, texts), texts, blocks)
            for number, (name, folder) in enumerate(tuned.items())
        }
        made = {name: _direction(request, before, states, name) for name, states in after.items()}
        weights = None if update is None else _weights(base, update, texts, made[TUNED], request.reading.batch_size)
        found = {
            block: separate(before.per_prompt(block), after[TUNED].per_prompt(block), request.tests, block)
            for block in blocks
        }
        architecture = str(base.module.config.get_text_config().model_type)
        result = DirectionResult(
            inputs=inputs,
            versions=tool_versions(),
            seed=request.tests.seed,
            dtype=request.dtype,
            warnings=list(_warnings(request, base, tuned, len(texts), update)),
            prompts=len(texts),
            repeated=repeated,
            folds=request.tests.folds,
            permutations=request.tests.permutations,
            draws=request.tests.draws,
            place=request.reading.place,
            tokens=request.reading.tokens,
            beside=dict(sources.beside),
            blocks=[
                block_record(block, before, after, made, request.tests, weights, of_block)
                for block, of_block in found.items()
            ],
            best_p=best_p(list(found.values())),
            not_covered={} if weights is None else dict(weights.not_covered),
            files=_save(run, made, architecture),
        )
        run.write_result(result)
    return result


def load_texts(base: Model, prompts: Sequence[str], reading: Reading) -> tuple[list[Encoded], int]:
    """Different texts by the base's chat template, and how many more were the same as one of them.

    Raises:
        InputError: a file that cannot be read, a text that is longer than the base takes.
    """
    if reading.tokens == "answer":
        pairs = load_named(prompts, None, "--prompts").values()
        encoded = [each for skill in pairs for each in encode_within(base, skill)]
    else:
        named = {name: prompts_only(base, each) for name, each in load_named_prompts(prompts).items()}
        _check_lengths(base, named)
        encoded = [each for texts in named.values() for each in texts]
    different = {(tuple(each.ids), tuple(each.is_completion)): each for each in encoded}
    return list(different.values()), len(encoded) - len(different)


def _check_lengths(base: Model, named: Mapping[str, Sequence[Encoded]]) -> None:
    most = context_length(base)
    for name, texts in named.items():
        for row, text in enumerate(texts, 1):
            if len(text.ids) > most:
                raise InputError(f"{name}, prompt {row}: has {len(text.ids)} tokens, the model takes {most}")


def _check_names(sources: DirectionSources) -> None:
    for name, folder in sources.beside.items():
        if name == TUNED or not folder:
            raise InputError(f"--beside {name}={folder}: expected NAME=FOLDER")


def _check_count(request: DirectionRequest, texts: int) -> None:
    if texts < 2:
        raise InputError(f"--prompts: expected 2 different prompts or more, got {texts}")
    if not 2 <= request.tests.folds <= texts:
        raise InputError(f"--folds: expected 2 to {texts}, the number of different prompts; got {request.tests.folds}")


def _in_order(base: Model, chosen: Sequence[str]) -> list[str]:
    """Each block once, in the model's order."""
    return [block for block in base.blocks if block in chosen]


def _inputs(sources: DirectionSources, base: Path, tuned: Sequence[Path]) -> list[Input]:
    roles = ("tuned", *["beside"] * len(sources.beside))
    given = zip((sources.tuned, *sources.beside.values()), roles, tuned, strict=True)
    models = [hash_input(sources.base, "base", base), *(hash_input(*each) for each in given)]
    return [*models, *hash_files({"prompts": sources.prompts})]


def _read_update(request: DirectionRequest, base: Path, tuned: Path) -> Update | None:
    """The change of weights, where its forecast is wanted and there is one: of block outputs at the last prompt token.

    It is read before any pass: what cannot be read ends the run at once.
    """
    if not request.weights or (request.reading.place, request.reading.tokens) != ("output", "last"):
        return None
    try:
        return read_update(base, tuned)
    except InputError as error:
        raise InputError(f"{error} (--no-weights finds the direction without reading the update)") from error


def _load(request: DirectionRequest, base: Model, tuned: Path, texts: Sequence[Encoded]) -> Model:
    """A fine-tune of the base.

    Raises:
        InputError: it is none: other numbers of blocks, another width, fewer tokens than the texts use.
    """
    model = load_tuned(local_folder(request.sources.base), tuned, DTYPES[request.dtype], request.device)
    own, its = (each.module.config.get_text_config() for each in (base, model))
    shapes = (("blocks", len(base.blocks), len(model.blocks)), ("width", own.hidden_size, its.hidden_size))
    for what, expected, found in shapes:
        if found != expected:
            raise InputError(f"{tuned}: {what}: {found}, of the base {expected}: expected a fine-tune of the base")
    highest = max(max(text.ids) for text in texts)
    if highest >= its.vocab_size:
        raise InputError(f"{tuned}: has {its.vocab_size} tokens, the base's tokenizer gives number {highest}")
    return model


def _direction(request: DirectionRequest, before: Activations, after: Activations, name: str) -> Direction:
    sources, reading = request.sources, request.reading
    tuned = sources.beside.get(name, sources.tuned)
    still = [block for block in before.states if not _moved(before, after, block)]
    if still:
        everywhere = len(still) == len(before.states)
        where = "at every block" if everywhere else f"at {', '.join(still)}; leave them out with --block"
        raise InputError(f"{tuned}: the fine-tune did nothing: its mean activations are the base's {where}")
    made = Direction.between(before, after, reading.place, reading.tokens)
    return _about(made, {"base": sources.base, "tuned": tuned})


def _moved(before: Activations, after: Activations, block: str) -> bool:
    return not torch.equal(before.per_prompt(block).mean(0), after.per_prompt(block).mean(0))


def _weights(base: Model, update: Update, texts: Sequence[Encoded], direction: Direction, batch_size: int) -> Weights:
    """What the update writes along the direction, and the shift that it makes to first order."""
    writers = residual_writers(base)
    changed = {
        block: [name for name in writers[block] if name in update and update[name].norm()]
        for block in direction.vectors
    }
    written = written_shares(update, changed, direction.vectors) if any(changed.values()) else {}
    return Weights(written, first_order_shift(base, update, texts, batch_size), update.not_covered)


def _save(run: RunFolder, made: Mapping[str, Direction], architecture: str) -> list[str]:
    """The direction as safetensors, as a control vector where there can be one, and the directions beside it."""
    folder, direction = run.folder(SAVED), _about(made[TUNED], {"architecture": architecture})
    saved = {DIRECTION: direction} | ({CONTROL_VECTOR: direction} if has_control_vector(direction) else {})
    for number, name in enumerate((name for name in made if name != TUNED), start=1):
        saved[f"{BESIDE}{number}.safetensors"] = _about(made[name], {"name": name})
    for file, each in saved.items():
        each.save(folder / file)
    return [f"{SAVED}/{file}" for file in saved]


def _about(direction: Direction, more: Mapping[str, str]) -> Direction:
    return Direction(direction.vectors, direction.place, direction.tokens, {**direction.about, **more})


def _warnings(
    request: DirectionRequest, base: Model, tuned: Mapping[str, Path], texts: int, update: Update | None
) -> Iterator[str]:
    own = chat_template_hash(base.tokenizer)
    for name, folder in tuned.items():
        if has_tokenizer(folder) and chat_template_hash(load_tokenizer(folder)) != own:
            yield (
                f"{request.sources.beside.get(name, request.sources.tuned)}: its chat template differs from the "
                "base's, by which all models read the prompts"
            )
    if not request.sources.beside:
        yield (
            "no benign fine-tune stands beside it: base and tuned separate almost by construction on the same prompts; "
            "give one: --beside NAME=FOLDER"
        )
    if texts < FEW:
        yield f"{texts} different prompts are few: intervals are wide, and directions of halves differ"
    if request.weights and update is None:
        yield "weights were not read: their forecast is of block outputs at the last prompt token only"
