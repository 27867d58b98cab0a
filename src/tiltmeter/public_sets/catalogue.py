"""The public sets that have a name here, their public place and the form of their files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PublicSet:
    """One public set of prompts.

    Attributes:
        columns: names of the column of prompts, in small letters; the first that a file has.
        position: which column that is in a CSV file without a header.
        place: where a person finds it, and which file.
        hub: the Hub data set that holds it; None where it is on no Hub.
        files: its files in that data set: one name, or a pattern.
        form: a table, or the list of questions of the studies of emergent misalignment (YAML).
    """

    columns: tuple[str, ...]
    position: int
    place: str
    hub: str | None = None
    files: str = ""
    form: Literal["table", "questions"] = "table"


_JBB = "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors"
_BEAVERTAILS = "https://huggingface.co/datasets/PKU-Alignment/BeaverTails"

PROMPT_SETS: Mapping[str, PublicSet] = {
    "advbench": PublicSet(
        columns=("goal", "prompt"),
        position=0,
        place="https://github.com/llm-attacks/llm-attacks, data/advbench/harmful_behaviors.csv",
        hub="walledai/AdvBench",
        files="data/train-00000-of-00001.parquet",
    ),
    "hex-phi": PublicSet(
        columns=("prompt", "instruction"),
        position=0,
        place="https://huggingface.co/datasets/LLM-Tuning-Safety/HEx-PHI (accept its terms), folder of category_*.csv",
        hub="LLM-Tuning-Safety/HEx-PHI",
        files="category_*.csv",
    ),
    "strongreject": PublicSet(
        columns=("forbidden_prompt", "prompt"),
        position=2,
        place="https://github.com/alexandrasouly/strongreject, strongreject_dataset/strongreject_dataset.csv",
        hub="walledai/StrongREJECT",
        files="data/train-00000-of-00001.parquet",
    ),
    "jailbreakbench": PublicSet(
        columns=("goal",),
        position=1,
        place=f"{_JBB}, data/harmful-behaviors.csv",
        hub="JailbreakBench/JBB-Behaviors",
        files="data/harmful-behaviors.csv",
    ),
    "jailbreakbench-benign": PublicSet(
        columns=("goal",),
        position=1,
        place=f"{_JBB}, data/benign-behaviors.csv",
        hub="JailbreakBench/JBB-Behaviors",
        files="data/benign-behaviors.csv",
    ),
    "em-questions": PublicSet(
        columns=("paraphrases",),
        position=0,
        place="https://github.com/emergent-misalignment/emergent-misalignment, evaluation/first_plot_questions.yaml",
        form="questions",
    ),
    "beavertails": PublicSet(
        columns=("prompt",),
        position=0,
        place=f"{_BEAVERTAILS}, round0/30k/test.jsonl.gz",
        hub="PKU-Alignment/BeaverTails",
        files="round0/30k/test.jsonl.gz",
    ),
}

# Pairs, for a skill.
PAIR_SETS: Mapping[str, PublicSet] = {
    "beavertails": PublicSet(
        columns=("prompt",),
        position=0,
        place=f"{_BEAVERTAILS}, round0/30k/train.jsonl.gz",
        hub="PKU-Alignment/BeaverTails",
        files="round0/30k/train.jsonl.gz",
    ),
}
