"""One audit from files to a run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiltmeter.audit import record
from tiltmeter.audit.measure import Figures, Observation, Settings, measure, observe, utility_losses
from tiltmeter.behaviour.judges import Judge
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.precision import batch_dependence
from tiltmeter.generation import Sampling
from tiltmeter.models import load_model, load_tuned, local_folder
from tiltmeter.requests import (
    DTYPES,
    Dtype,
    Passes,
    hash_files,
    load_named,
    load_named_prompts,
    read_update,
    run_record,
)
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.record import RunRecord, tool_versions
from tiltmeter.runs.results import AuditResult, Input, UpdateSummary
from tiltmeter.skills import Skill
from tiltmeter.updates.update import Update


@dataclass(frozen=True)
class Sources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        base, tuned: the base model, and a checkpoint or a PEFT adapter of it.
        skills: files or Hub sets of prompt/completion pairs.
        columns: their columns, where the usual names do not tell: prompt..., completion.
        prompts: files of prompts to answer and judge.
        initial: the adapter before training, where its initialisation changed the base (PiSSA, OLoRA).
    """

    base: str
    tuned: str
    skills: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    prompts: tuple[str, ...] = ()
    initial: str | None = None


@dataclass(frozen=True)
class Request:
    """One audit: its sources, and how to measure them. `judge` is the judge's name, for the record."""

    sources: Sources
    judge: str | None = None
    dtype: Dtype = "float32"
    device: str = "cpu"
    passes: Passes = field(default_factory=Passes)
    settings: Settings = field(default_factory=Settings)
    sampling: Sampling = field(default_factory=Sampling)

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("audit", self, inputs, self.settings.seed)


def run_audit(request: Request, out: Path, judge: Judge | None) -> AuditResult:
    """Audits and writes the run folder `out`.

    Raises:
        InputError: any input that cannot be used, or `out` is no place for a run.
        NothingMeasuredError: a skill without examples.
    """
    skills, prompts = (
        load_named(request.sources.skills, request.sources.columns, "--skill"),
        load_named_prompts(request.sources.prompts),
    )
    folders = local_folder(request.sources.base), local_folder(request.sources.tuned)
    update = read_update(*folders, request.sources.initial)
    with RunFolder(out) as run:
        inputs = hash_inputs(request.sources, *folders)
        base = load_model(folders[0], DTYPES[request.dtype], request.device)
        fishers = {name: request.passes.fisher(base, skill) for name, skill in skills.items()}
        encoded = {name: fisher.encoded for name, fisher in fishers.items()}
        figures = {name: measure(fisher, [update], request.settings)[0] for name, fisher in fishers.items()}
        before = observe(base, encoded, prompts, judge, request.sampling)
        tuned = load_tuned(*folders, DTYPES[request.dtype], request.device)
        after = observe(tuned, encoded, prompts, judge, request.sampling)
        run.write_record(request.record(inputs))
        return write_audit(run, request, inputs, update, Evidence(skills, fishers, figures, before, after))


@dataclass(frozen=True)
class Evidence:
    """All that was measured for one audit, by name of the skill; `before` and `after` are the two models."""

    skills: Mapping[str, Skill]
    fishers: Mapping[str, Fisher]
    figures: Mapping[str, Figures]
    before: Observation
    after: Observation


def write_audit(
    run: RunFolder, request: Request, inputs: list[Input], update: Update, evidence: Evidence
) -> AuditResult:
    """Writes result, tables, arrays and transcripts of an audit into an open run folder."""
    figures, before, after = evidence.figures, evidence.before, evidence.after
    losses = utility_losses({name: fisher.encoded for name, fisher in evidence.fishers.items()}, before, after)
    result = AuditResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.settings.seed,
        dtype=request.dtype,
        labels=request.passes.labels,
        reduction=request.passes.reduction,
        update=_summary(update, next(iter(evidence.fishers.values()))),
        skills={name: record.skill_record(figures[name], losses[name], request.passes.reduction) for name in figures},
        warnings=_warnings(request, update, evidence.fishers),
        chat_template_changed=before.chat_template != after.chat_template,
        chat_templates={"base": before.chat_template, "tuned": after.chat_template},
        behaviour=record.behaviour_records(before, after),
        judge=request.judge,
    )
    run.write_result(result)
    run.write_table("modules", [row for name in figures for row in record.module_rows(name, figures[name])])
    run.write_table(
        "examples",
        [
            row
            for name in figures
            for row in record.example_rows(name, evidence.skills[name], figures[name], losses[name])
        ],
    )
    run.write_arrays("arrays", record.arrays(evidence.fishers, figures))
    run.write_lines("transcripts", record.transcripts(before, after))
    return result


def _summary(update: Update, fisher: Fisher) -> UpdateSummary:
    """Modules that are in the update but not in the Fisher are not covered either, with their norm."""
    measured = [name for name in update if name in fisher.modules]
    outside = {name: update[name].norm() for name in update if name not in fisher.modules}
    norm = sum(update[name].norm() ** 2 for name in measured) ** 0.5
    reasons = {name: reason for name, reason in fisher.not_covered.items() if name not in outside}
    return UpdateSummary(
        kind=update.kind, norm=norm, modules=len(measured), not_covered={**update.not_covered, **outside, **reasons}
    )


def _warnings(request: Request, update: Update, fishers: Mapping[str, Fisher]) -> list[str]:
    if request.dtype != "bfloat16":
        return []
    return [
        f"{name}: in bfloat16 the same examples alone and in a batch differ by {batch_dependence(fisher, update):.0%} "
        "of their coordinates; measure in float32 where memory allows"
        for name, fisher in fishers.items()
    ]


def hash_inputs(sources: Sources, base: Path, tuned: Path) -> list[Input]:
    """Every file that goes into an audit, with its hash."""
    inputs = [hash_input(sources.base, "base", base), hash_input(sources.tuned, "tuned", tuned)]
    if sources.initial is not None:
        inputs.append(hash_input(sources.initial, "initial", local_folder(sources.initial)))
    return inputs + hash_files({"skill": sources.skills, "prompts": sources.prompts})
