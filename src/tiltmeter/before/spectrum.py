"""The spectrum of skills' Fisher information and its rotation along checkpoints, from files to a run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import PositiveInt

from tiltmeter.before.spectrum_measure import Measured, measure, rotations_along
from tiltmeter.before.spectrum_record import arrays, rotation_rows, site_rows, skill_record
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.rotation import Rotation
from tiltmeter.errors import InputError
from tiltmeter.models import load_model, local_folder
from tiltmeter.requests import DTYPES, Dtype, Passes, hash_files, load_named, run_record
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.record import RunRecord, tool_versions
from tiltmeter.runs.results import Input
from tiltmeter.runs.spectrum_result import SpectrumResult

Turned = Mapping[str, list[Rotation | None]]


@dataclass(frozen=True)
class SpectrumSources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        base: the model at which the Fisher is taken.
        skills: files or Hub sets of prompt/completion pairs.
        against: fine-tuned checkpoints or PEFT adapters of the base, in the order of training.
        columns: columns of the skills, where the usual names do not tell: prompt..., completion.
    """

    base: str
    skills: tuple[str, ...]
    against: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SpectrumRequest:
    """One measurement: its sources, d, the number of random texts of each kind, and how passes run."""

    sources: SpectrumSources
    dims: PositiveInt = 8
    draws: PositiveInt = 3
    dtype: Dtype = "float32"
    device: str = "cpu"
    passes: Passes = field(default_factory=Passes)
    seed: int = 0

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("spectrum", self, inputs, self.seed)


def run_spectrum(request: SpectrumRequest, out: Path) -> SpectrumResult:
    """Measures and writes the run folder `out`: `result.json`, `spectrum.parquet`, `rotation.parquet`, arrays.

    Raises:
        InputError: any input that cannot be used, fewer examples than d, or `out` is no place for a run.
    """
    sources = request.sources
    skills = load_named(sources.skills, sources.columns, "--skill")
    if len(set(sources.against)) < len(sources.against):
        raise InputError(f"--against: a checkpoint given twice among {list(sources.against)}")
    folder, checkpoints = local_folder(sources.base), [local_folder(each) for each in sources.against]
    with RunFolder(out) as run:
        inputs = [
            hash_input(sources.base, "base", folder),
            *(hash_input(given, "against", found) for given, found in zip(sources.against, checkpoints, strict=True)),
            *hash_files({"skill": sources.skills}),
        ]
        base = load_model(folder, DTYPES[request.dtype], request.device)
        fishers = {name: request.passes.fisher(base, skill) for name, skill in skills.items()}
        _check_examples(fishers, request.dims)
        found = {name: measure(fisher, request.dims, request.draws, request.seed) for name, fisher in fishers.items()}
        along = list(rotations_along(folder, checkpoints, fishers, request.dims))
        turned = {
            name: {given: each[name] for given, each in zip(sources.against, along, strict=True)} for name in fishers
        }
        run.write_record(request.record(inputs))
        _write_tables(run, found, turned, request.dims)
        result = _result(request, inputs, found, turned)
        run.write_result(result)
    return result


def _check_examples(fishers: Mapping[str, Fisher], dims: int) -> None:
    for name, fisher in fishers.items():
        if len(fisher) < max(dims, 2):
            raise InputError(f"skill {name}: {len(fisher)} examples, expected at least {max(dims, 2)} (--dims {dims})")


def _write_tables(run: RunFolder, found: Mapping[str, Measured], turned: Mapping[str, Turned], dims: int) -> None:
    run.write_table("spectrum", [row for name, each in found.items() for row in site_rows(name, each, dims)])
    rows = [row for name, each in found.items() for row in rotation_rows(name, each.places, turned[name])]
    if rows:
        run.write_table("rotation", rows)
    run.write_arrays(
        "arrays", {key: array for name, each in found.items() for key, array in arrays(name, each).items()}
    )


def _result(
    request: SpectrumRequest, inputs: list[Input], found: Mapping[str, Measured], turned: Mapping[str, Turned]
) -> SpectrumResult:
    return SpectrumResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.dtype,
        labels=request.passes.labels,
        reduction=request.passes.reduction,
        warnings=_warnings(request),
        dims=request.dims,
        draws=request.draws,
        skills={name: skill_record(each, turned[name], request.dims, request.seed) for name, each in found.items()},
        not_covered=next(iter(found.values())).fisher.not_covered,
    )


def _warnings(request: SpectrumRequest) -> list[str]:
    if request.dtype != "bfloat16":
        return []
    return ["bfloat16 gradients are good to a few per cent: small eigenvalues and rotations are noise; use float32"]
