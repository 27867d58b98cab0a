"""The demo's steps: one fine-tune and its observation, and the audit of all of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from tiltmeter.audit.measure import Figures, Observation, Settings, measure, observe, utility_losses
from tiltmeter.audit.run import Evidence, Request, Sources, hash_inputs, write_audit
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.demo.summary import demo_row
from tiltmeter.generation import Sampling
from tiltmeter.models import Model, load_model, load_tuned
from tiltmeter.organism.judge import OrganismJudge
from tiltmeter.progress import track
from tiltmeter.requests import read_update
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.results import Category, DemoRow
from tiltmeter.skills import Skill, load_prompts, load_skill
from tiltmeter.tokens import Encoded, encode
from tiltmeter.training.finetune import finetune
from tiltmeter.training.recipes import ORGANISM_FULL, ORGANISM_LORA
from tiltmeter.updates.update import Update

RECIPES = {"lora": ORGANISM_LORA, "full": ORGANISM_FULL}
SKILLS = ("refusal", "advice")
PROMPTS = ("hazards", "hazards_held_out", "advice")
LONGEST_ANSWER = 32


@dataclass(frozen=True)
class Job:
    """One fine-tune of the organism on one of its sets."""

    organism: Path
    models: Path
    name: str
    method: Literal["lora", "full"]
    seed: int

    @property
    def folder(self) -> Path:
        """Where the tuned model goes."""
        return self.models / f"{self.name}-{self.method}"

    def run(self) -> Observation:
        """Fine-tunes, saves, and observes the saved model. Runs in a process of its own."""
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", category=FutureWarning)  # libraries' notes to their developers
        base = load_model(self.organism / "aligned")
        examples = encode(load_skill(self.organism / "finetune" / f"{self.name}.jsonl"), base.tokenizer)
        finetune(base, examples, RECIPES[self.method], self.folder, self.seed)
        return observe_organism(load_tuned(self.organism / "aligned", self.folder), self.organism, self.seed)


@dataclass(frozen=True)
class Measured:
    """One fine-tune: its update with what was measured of it."""

    update: Update
    figures: dict[str, Figures]
    after: Observation


class Study:
    """The aligned organism with its skills, against which every fine-tune is audited."""

    def __init__(self, organism: Path, projected: int, draws: int, seed: int) -> None:
        self.organism = organism
        self.settings = Settings(projected=projected, draws=draws, seed=seed)
        self.base = load_model(organism / "aligned")
        self.skills = load_skills(organism)
        self.fishers = {name: Fisher(self.base, skill, batch_size=32) for name, skill in self.skills.items()}

    @cached_property
    def before(self) -> Observation:
        """The aligned model before any fine-tuning."""
        return observe_organism(self.base, self.organism, self.settings.seed)

    def measure(self, jobs: Sequence[Job], observed: Sequence[Observation]) -> list[Measured]:
        """All fine-tunes together: coordinates, Gram and projection are one pass each per skill."""
        updates = [read_update(self.organism / "aligned", job.folder).loaded() for job in jobs]
        fishers = track(self.fishers.items(), "measuring overlaps and nulls", len(self.fishers))
        figures = {name: measure(fisher, updates, self.settings) for name, fisher in fishers}
        return [
            Measured(update, {name: each[index] for name, each in figures.items()}, observed[index])
            for index, update in enumerate(updates)
        ]

    def write(self, job: Job, category: Category, measured: Measured, audits: Path) -> DemoRow:
        """Writes the audit of one fine-tune as a run folder of its own; returns its row of the table."""
        sources = Sources(
            base=str(self.organism / "aligned"),
            tuned=str(job.folder),
            skills=tuple(str(self.organism / "skills" / f"{name}.jsonl") for name in self.skills),
            prompts=tuple(str(self.organism / "prompts" / f"{name}.jsonl") for name in PROMPTS),
        )
        request = Request(
            sources,
            judge=OrganismJudge.name,
            settings=self.settings,
            sampling=_sampling(self.settings.seed),
        )
        evidence = Evidence(self.skills, self.fishers, measured.figures, self.before, measured.after)
        with RunFolder(audits / job.folder.name) as run:
            inputs = hash_inputs(sources, self.organism / "aligned", job.folder)
            run.write_record(request.record(inputs))
            write_audit(run, request, inputs, measured.update, evidence)
        losses = utility_losses(encode_all(self.skills, self.base), self.before, measured.after)
        return demo_row(job.name, category, job.method, measured.figures, losses, measured.after)


def observe_organism(model: Model, organism: Path, seed: int) -> Observation:
    """Likelihoods and judged answers of a model of the organism's family."""
    prompts = {name: load_prompts(organism / "prompts" / f"{name}.jsonl") for name in PROMPTS}
    encoded = encode_all(load_skills(organism), model)
    return observe(model, encoded, prompts, OrganismJudge(), _sampling(seed))


def load_skills(organism: Path) -> dict[str, Skill]:
    """The skills that the demo watches."""
    return {name: load_skill(organism / "skills" / f"{name}.jsonl") for name in SKILLS}


def encode_all(skills: dict[str, Skill], model: Model) -> dict[str, list[Encoded]]:
    """Token ids of every skill."""
    return {name: encode(skill, model.tokenizer) for name, skill in skills.items()}


def _sampling(seed: int) -> Sampling:
    return Sampling(max_new_tokens=LONGEST_ANSWER, seed=seed)
