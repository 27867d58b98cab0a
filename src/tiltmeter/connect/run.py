"""One path through weight space, from files to a run folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, FiniteFloat

from tiltmeter.behaviour.judges import Judge
from tiltmeter.connect import record
from tiltmeter.connect.probe import Probe, memory_needed
from tiltmeter.connect.saving import Saving, save_points
from tiltmeter.connect.walk import Key, Questions, Walk, walk
from tiltmeter.errors import InputError
from tiltmeter.generation import Sampling
from tiltmeter.geometry.ends import read_end
from tiltmeter.geometry.path import End, Variant, WeightPath
from tiltmeter.models import Model, chat_template_hash, has_tokenizer, load_model, load_tokenizer, local_folder
from tiltmeter.requests import DTYPES, Dtype, Passes, hash_files, load_named, load_named_prompts, run_record
from tiltmeter.runs.connect_result import ConnectResult, EndSummary
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.record import RunRecord, tool_versions
from tiltmeter.runs.results import Input
from tiltmeter.skills import Skill
from tiltmeter.tokens import encode_within


@dataclass(frozen=True)
class ConnectSources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        base: the model that both ends are fine-tunes of.
        first, second: checkpoints or PEFT adapters; without a second, the path leads from the base to the first.
        skills, data: files or Hub sets of prompt/completion pairs.
        prompts: files of prompts to answer and judge.
        columns: columns of the pairs, where the usual names do not tell: prompt..., completion.
    """

    base: str
    first: str
    second: str | None = None
    skills: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None

    @property
    def tuned(self) -> tuple[str, ...]:
        """One end or both."""
        return (self.first,) if self.second is None else (self.first, self.second)


@dataclass(frozen=True)
class ConnectRequest:
    """One path: its sources, the points to visit (0 and 1 among them), and how to measure and save."""

    sources: ConnectSources
    points: Annotated[tuple[FiniteFloat, ...], Field(min_length=2)]
    variant: Variant = "effective"
    judge: str | None = None
    dtype: Dtype = "float32"
    device: str = "cpu"
    passes: Passes = field(default_factory=Passes)
    sampling: Sampling = field(default_factory=Sampling)
    saving: Saving = field(default_factory=Saving)

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("connect", self, inputs, self.sampling.seed)


def default_points(across: bool) -> tuple[float, ...]:
    """Eleven points: 0 to 1 across tasks, 0 to 2 from the base."""
    return tuple(step / 10 if across else step / 5 for step in range(11))


def run_connect(request: ConnectRequest, out: Path, judge: Judge | None) -> ConnectResult:
    """Walks the path and writes the run folder `out`.

    Raises:
        InputError: any input that cannot be used, or `out` is no place for a run.
        NothingMeasuredError: likelihoods that are no numbers.
    """
    sources, tuned = request.sources, request.sources.tuned
    _check(request)
    sets = _load_sets(sources)
    prompts = load_named_prompts(sources.prompts)
    base_folder, *folders = (local_folder(source) for source in (sources.base, *tuned))
    with RunFolder(out) as run:
        inputs = [hash_input(sources.base, "base", base_folder)]
        inputs += [hash_input(source, "tuned", folder) for source, folder in zip(tuned, folders, strict=True)]
        inputs += hash_files({"skill": sources.skills, "data": sources.data, "prompts": sources.prompts})
        base = load_model(base_folder, DTYPES[request.dtype], request.device)
        probes = _probes(base, sets, request.passes)
        path = WeightPath(base, [read_end(base, base_folder, folder) for folder in folders], request.variant)
        run.write_record(request.record(inputs))
        saved = save_points(path, request.saving, base_folder, run)
        found = walk(path, request.points, probes, Questions(prompts, judge, request.sampling))
        notes = list(_warnings(request, path, folders))
        result = _result(request, inputs, path, probes, found).model_copy(update={"saved": saved, "warnings": notes})
        run.write_result(result)
        _write_tables(run, sets, probes, found, list(base.blocks))
        run.write_lines("transcripts", record.transcripts(found, across=len(folders) == 2))
    return result


def _check(request: ConnectRequest) -> None:
    last = 1.0 if request.sources.second is not None else 2.0
    sources, points, saved = request.sources, request.points, request.saving.points
    if not {0.0, 1.0} <= set(points) or list(points) != sorted(set(points)) or not _are_within(points, last):
        raise InputError(f"points: expected 0 and 1 among ascending numbers from 0 to {last:g}, got {list(points)}")
    if len(saved) > len(set(saved)) or not _are_within(saved, last):
        raise InputError(f"points to save: expected different numbers from 0 to {last:g}, got {list(saved)}")
    if not (sources.skills or sources.data or sources.prompts or saved):
        raise InputError("nothing to measure: give --skill, --data or --prompts, or points to --save")


def _are_within(points: Sequence[float], last: float) -> bool:
    return all(0 <= s <= last for s in points)  # not NaN either


def _load_sets(sources: ConnectSources) -> dict[Key, Skill]:
    skills = load_named(sources.skills, sources.columns, "--skill") if sources.skills else {}
    data = load_named(sources.data, sources.columns, "--data") if sources.data else {}
    sets: dict[Key, Skill] = {("skill", name): skill for name, skill in skills.items()}
    return {**sets, **{("data", name): skill for name, skill in data.items()}}


def _probes(base: Model, sets: Mapping[Key, Skill], passes: Passes) -> dict[Key, Probe]:
    encoded = {key: encode_within(base, skill, passes.max_length) for key, skill in sets.items()}
    skills = [example for key, examples in encoded.items() if key[0] == "skill" for example in examples]
    needed = memory_needed(base, skills, [example for examples in encoded.values() for example in examples])
    if needed > passes.memory * 2**30:
        raise InputError(
            f"the base's log-probabilities of the skills and the ends' features take {needed / 2**30:.2g} GiB, but "
            f"--memory is {passes.memory:g}: raise it, or give fewer or shorter examples"
        )
    return {key: Probe(base, examples, passes.batch_size, key[0] == "skill") for key, examples in encoded.items()}


def _result(
    request: ConnectRequest, inputs: list[Input], path: WeightPath, probes: Mapping[Key, Probe], found: Walk
) -> ConnectResult:
    blocks, reduction = list(path.model.blocks), request.passes.reduction
    skills, data = ({key: probe for key, probe in probes.items() if key[0] == kind} for kind in ("skill", "data"))
    return ConnectResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.sampling.seed,
        dtype=request.dtype,
        labels="data",
        reduction=reduction,
        path="base-to-tuned" if len(path.ends) == 1 else "across",
        variant=request.variant,
        points=list(request.points),
        ends=[_summary(end) for end in path.ends],
        skills={key[1]: record.skill_record(found, key, probe, blocks, reduction) for key, probe in skills.items()},
        data={key[1]: record.data_record(found, key, probe, blocks) for key, probe in data.items()},
        behaviour=record.behaviour_records(found),
        judge=request.judge,
        kept_bytes=sum(probe.kept_bytes for probe in probes.values()),
    )


def _summary(end: End) -> EndSummary:
    others = {name: float(torch.linalg.vector_norm(change.double())) for name, change in end.others.items()}
    return EndSummary(kind=end.update.kind, norm=end.update.norm(), modules=len(end.update), others=others)


def _warnings(request: ConnectRequest, path: WeightPath, folders: Sequence[Path]) -> Iterator[str]:
    """What a reader must know besides."""
    own = chat_template_hash(path.model.tokenizer)
    for source, folder in zip(request.sources.tuned, folders, strict=True):
        if has_tokenizer(folder) and chat_template_hash(load_tokenizer(folder)) != own:
            yield f"{source}: its chat template differs from the base's, which is used along the whole path"
    if request.dtype == "bfloat16":
        yield (
            f"rounding to bfloat16 moves the weights at s = 0.5 by {path.rounding(0.5):.0%} of their distance from the "
            "base: measure in float32 where memory allows"
        )


def _write_tables(
    run: RunFolder, sets: Mapping[Key, Skill], probes: Mapping[Key, Probe], found: Walk, blocks: Sequence[str]
) -> None:
    rows = [row for key, skill in sets.items() for row in record.example_rows(found, key, skill, probes[key])]
    features = [row for key in sets for row in record.feature_rows(found, key, blocks)]
    for name, table in {"examples": rows, "features": features}.items():
        run.write_table(name, table)
