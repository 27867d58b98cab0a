"""The direction from a base to a fine-tune of it, from files to a run folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from tiltmeter.activations.capture import Activations, prompts_only
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.direction_files import GGUF, has_control_vector
from tiltmeter.activations.first_order import first_order_shift
from tiltmeter.activations.hook_points import chosen_blocks
from tiltmeter.activations.writing import residual_writers, written_shares
from tiltmeter.directions.captured import Capturing, Reading
from tiltmeter.directions.direction_record import TUNED, Weights, block_record
from tiltmeter.directions.direction_request import DirectionRequest, DirectionSources
from tiltmeter.errors import InputError
from tiltmeter.models import (
    Model,
    chat_template_hash,
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
    base_folder = local_folder(sources.base)
    tuned = {name: local_folder(each) for name, each in {TUNED: sources.tuned, **sources.beside}.items()}
    with RunFolder(out) as run:
        inputs = _inputs(sources, base_folder, list(tuned.values()))
        base = load_model(base_folder, DTYPES[request.dtype], request.device)
        texts, repeated = load_texts(base, sources.prompts, request.reading)
        _check(request, len(texts))
        blocks = chosen_blocks(base, None if request.blocks is None else list(request.blocks))
        run.resume_or_start(request.record(inputs))
        capturing = Capturing(run, request.reading)
        before = capturing.read("base", lambda: base, texts, blocks)
        after = {
            name: capturing.read(f"tuned-{number}", _loader(request, base_folder, folder), texts, blocks)
            for number, (name, folder) in enumerate(tuned.items())
        }
        made = {name: _direction(request, before, states, name) for name, states in after.items()}
        weights = _read_weights(base, base_folder, tuned[TUNED], texts, made[TUNED]) if request.weights else None
        architecture = str(base.module.config.get_text_config().model_type)
        result = DirectionResult(
            inputs=inputs,
            versions=tool_versions(),
            seed=request.tests.seed,
            dtype=request.dtype,
            warnings=list(_warnings(request, base, list(tuned.values()), len(texts), weights)),
            prompts=len(texts),
            repeated=repeated,
            folds=request.tests.folds,
            permutations=request.tests.permutations,
            draws=request.tests.draws,
            place=request.reading.place,
            tokens=request.reading.tokens,
            beside=dict(sources.beside),
            blocks=[block_record(block, before, after, made, request.tests, weights) for block in blocks],
            not_covered={} if weights is None else dict(weights.not_covered),
            files=_save(run, made, architecture),
        )
        run.write_result(result)
    return result


def load_texts(base: Model, prompts: Sequence[str], reading: Reading) -> tuple[list[Encoded], int]:
    """Different texts by the base's chat template, and how many more were the same as one of them.

    Raises:
        InputError: a file that cannot be read.
    """
    if reading.tokens == "answer":
        pairs = load_named(prompts, None, "--prompts").values()
        encoded = [each for skill in pairs for each in encode_within(base, skill)]
    else:
        encoded = prompts_only(base, [prompt for each in load_named_prompts(prompts).values() for prompt in each])
    different = {(tuple(each.ids), tuple(each.is_completion)): each for each in encoded}
    return list(different.values()), len(encoded) - len(different)


def _check(request: DirectionRequest, texts: int) -> None:
    if TUNED in request.sources.beside:
        raise InputError("--beside: expected NAME=FOLDER")
    if not 2 <= request.tests.folds <= texts:
        raise InputError(f"--folds: expected 2 to the number of different prompts, {texts}; got {request.tests.folds}")


def _inputs(sources: DirectionSources, base: Path, tuned: Sequence[Path]) -> list[Input]:
    roles = ("tuned", *["beside"] * len(sources.beside))
    given = zip((sources.tuned, *sources.beside.values()), roles, tuned, strict=True)
    models = [hash_input(sources.base, "base", base), *(hash_input(*each) for each in given)]
    return [*models, *hash_files({"prompts": sources.prompts})]


def _loader(request: DirectionRequest, base: Path, tuned: Path) -> Callable[[], Model]:
    return cache(partial(load_tuned, base, tuned, DTYPES[request.dtype], request.device))


def _direction(request: DirectionRequest, before: Activations, after: Activations, name: str) -> Direction:
    sources, reading = request.sources, request.reading
    made = Direction.between(before, after, reading.place, reading.tokens)
    tuned = sources.beside.get(name, sources.tuned)
    return Direction(made.vectors, made.place, made.tokens, {"base": sources.base, "tuned": tuned})


def _read_weights(
    base: Model, folder: Path, tuned: Path, texts: Sequence[Encoded], direction: Direction
) -> Weights | None:
    """What the update writes along the direction, and the shift that it makes to first order: of block outputs only."""
    if (direction.place, direction.tokens) != ("output", "last"):
        return None
    update, writers = read_update(folder, tuned), residual_writers(base)
    writes = any(name in update for block in direction.vectors for name in writers[block])
    written = written_shares(update, writers, direction.vectors) if writes else {}
    return Weights(written, first_order_shift(base, update, texts), update.not_covered)


def _save(run: RunFolder, made: Mapping[str, Direction], architecture: str) -> list[str]:
    """The direction as safetensors, as a control vector where there can be one, and the directions beside it."""
    folder, direction = run.folder(SAVED), _about(made[TUNED], {"architecture": architecture})
    direction.save(folder / DIRECTION)
    if has_control_vector(direction):
        direction.save(folder / CONTROL_VECTOR)
    for number, name in enumerate((name for name in made if name != TUNED), start=1):
        _about(made[name], {"name": name}).save(folder / f"{BESIDE}{number}.safetensors")
    return [f"{SAVED}/{path.name}" for path in sorted(folder.iterdir(), key=_ours_first)]


def _ours_first(path: Path) -> tuple[bool, str]:
    return path.name != DIRECTION, path.name


def _about(direction: Direction, more: Mapping[str, str]) -> Direction:
    return Direction(direction.vectors, direction.place, direction.tokens, {**direction.about, **more})


def _warnings(
    request: DirectionRequest, base: Model, tuned: Sequence[Path], texts: int, weights: Weights | None
) -> Iterator[str]:
    own = chat_template_hash(base.tokenizer)
    for folder in tuned:
        if has_tokenizer(folder) and chat_template_hash(load_tokenizer(folder)) != own:
            yield f"{folder.name}: its chat template differs from the base's, by which all models read the prompts"
    if not request.sources.beside:
        yield (
            "no benign fine-tune stands beside it: base and tuned separate almost by construction on the same prompts; "
            "give one: --beside NAME=FOLDER"
        )
    if texts < FEW:
        yield f"{texts} different prompts are few: intervals are wide, and directions of halves differ"
    if request.weights and weights is None:
        yield "weights were not read: their forecast is of block outputs at the last prompt token only"
