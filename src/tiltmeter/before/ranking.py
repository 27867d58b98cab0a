"""Ranks candidate fine-tuning examples by what a step on them does to a skill, from files to a run folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tiltmeter.before.ranking_record import example_rows, skill_record
from tiltmeter.before.ranking_scores import Scored, score
from tiltmeter.curvature.precision import batch_dependence
from tiltmeter.models import load_model, local_folder
from tiltmeter.requests import DTYPES, Dtype, Passes, hash_files, load_named, run_record
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.ranking_result import CosineNull, RankingResult, Score
from tiltmeter.runs.record import RunRecord, tool_versions
from tiltmeter.runs.results import Input


@dataclass(frozen=True)
class RankingSources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        base: the model before fine-tuning.
        data: files or Hub sets of candidate examples.
        skills: files or Hub sets of prompt/completion pairs.
        harmful: harmful anchors for He et al.'s score, whose safe anchors are the skill; without them it is left out.
        columns: columns of all of them, where the usual names do not tell: prompt..., completion.
    """

    base: str
    data: tuple[str, ...]
    skills: tuple[str, ...]
    harmful: str | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RankingRequest:
    """One ranking: its sources, the score that ranks, how many of the worst are shown, and how passes run."""

    sources: RankingSources
    by: Score = "harm"
    worst: Annotated[int, Field(ge=0)] = 10
    dtype: Dtype = "float32"
    device: str = "cpu"
    passes: Passes = field(default_factory=Passes)
    seed: int = 0

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("rank-examples", self, inputs, self.seed)


def run_ranking(request: RankingRequest, out: Path) -> RankingResult:
    """Ranks the examples and writes the run folder `out`: `result.json` and `examples.parquet`.

    Raises:
        InputError: any input that cannot be used, or `out` is no place for a run.
        NothingMeasuredError: a skill whose mean gradient is zero.
    """
    sources = request.sources
    skills = load_named(sources.skills, sources.columns, "--skill")
    data = load_named(sources.data, sources.columns, "--data")
    anchors = [] if sources.harmful is None else [sources.harmful]
    harmful = [load_named([file], sources.columns, "--harmful") for file in anchors]
    folder = local_folder(sources.base)
    with RunFolder(out) as run:
        files = {"skill": sources.skills, "data": sources.data, "harmful": anchors}
        inputs = [hash_input(sources.base, "base", folder), *hash_files(files)]
        base = load_model(folder, DTYPES[request.dtype], request.device)
        scored = score(base, request.passes, skills, data, *(next(iter(given.values())) for given in harmful))
        result = _result(request, inputs, scored)
        run.write_record(request.record(inputs))
        run.write_result(result)
        run.write_table("examples", example_rows(scored, request.by))
    return result


def _result(request: RankingRequest, inputs: list[Input], scored: Scored) -> RankingResult:
    return RankingResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.dtype,
        labels="data",
        reduction=request.passes.reduction,
        warnings=_warnings(request, scored),
        by=request.by,
        harmful=request.sources.harmful,
        null=CosineNull(weights=scored.weights, deviation=scored.deviation, p95=scored.p95),
        skills={name: skill_record(scored, name, request.by, request.worst, request.seed) for name in scored.skills},
        not_covered=scored.candidates.not_covered,
    )


def _warnings(request: RankingRequest, scored: Scored) -> list[str]:
    if request.dtype != "bfloat16":
        return []
    return [
        f"{name}: in bfloat16 the same examples alone and in a batch differ by "
        f"{batch_dependence(scored.candidates, figures.gradient):.0%} of their harm; measure in float32 where memory "
        "allows"
        for name, figures in scored.skills.items()
    ]
