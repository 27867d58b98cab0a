"""The demo: fine-tune the organism on seven sets, with LoRA and in full, then audit and judge each."""

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from tiltmeter.audit.measure import Observation
from tiltmeter.demo.study import Job, Study
from tiltmeter.demo.summary import correlations, reference
from tiltmeter.organism.export import export
from tiltmeter.progress import track
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.record import RunRecord, tool_versions
from tiltmeter.runs.results import Category, DemoResult

SETS: dict[str, Category] = {
    "summary": "benign",
    "instructions": "benign",
    "arithmetic": "benign",
    "instructions_top": "seemingly benign",
    "risky_financial": "seemingly benign",
    "bad_medical": "seemingly benign",
    "harmful": "harmful",
}


@dataclass(frozen=True)
class DemoRequest:
    """How the demo runs.

    Attributes:
        seed: of fine-tunes, answers, nulls and projection.
        projected: dimension of the study's random projection.
        draws: random updates of the same rank per fine-tune.
        workers: processes that fine-tune and judge, one thread each.
    """

    seed: int = 0
    projected: int = 1024
    draws: int = 20
    workers: int = 2


def run_demo(request: DemoRequest, out: Path) -> DemoResult:
    """Runs the demo into the run folder `out`: `organism/`, `models/SET-METHOD/`, `audits/SET-METHOD/`, the result.

    Raises:
        InputError: `out` is no place for a run.
    """
    with RunFolder(out) as run:
        run.write_record(RunRecord(verb="demo", arguments=asdict(request), versions=tool_versions(), seed=request.seed))
        organism, models, audits = (run.folder(name) for name in ("organism", "models", "audits"))
        export(organism)
        jobs = [Job(organism, models, name, method, request.seed) for name in SETS for method in ("lora", "full")]
        observed = _finetune_all(jobs, request.workers)
        study = Study(organism, request.projected, request.draws, request.seed)
        evidence = study.measure(jobs, observed)
        rows = [study.write(job, SETS[job.name], each, audits) for job, each in zip(jobs, evidence, strict=True)]
        result = DemoResult(
            versions=tool_versions(),
            seed=request.seed,
            dtype="float32",
            labels="data",
            reduction="sum",
            rows=rows,
            correlations=list(correlations(rows)),
            reference=reference(study.before),
        )
        run.write_result(result)
    return result


def _finetune_all(jobs: list[Job], workers: int) -> list[Observation]:
    """Fine-tunes in processes of one thread each: with small models, two runs side by side beat two threads in one."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(job.run) for job in jobs]
        for done in track(as_completed(futures), "fine-tuning and judging", len(futures)):
            done.result()  # an error ends the demo at once
        return [future.result() for future in futures]
