"""A folder of a steered model, written through the project's own API without a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_judge import judge_record
from fake_runs import VERSIONS, interval
from tiltmeter.runs import RunFolder, RunRecord
from tiltmeter.runs.judge_result import AnswerRecord, DifferenceRecord, OutcomeRecord, SetRecord
from tiltmeter.runs.results import Interval, VerdictRecord
from tiltmeter.runs.steer_result import ArmRecord, ControlRecord, SteerResult

DRAWS = 59


def controls(effect: float, given: Sequence[str] = ("sign flip", "benign")) -> list[ControlRecord]:
    """Two random kinds, which reach half and three quarters of the effect, and given vectors that do nothing."""
    drawn = [
        ControlRecord(kind="isotropic", draws=DRAWS, mean=effect / 16, p95=effect / 2, p=1 / 60),
        ControlRecord(kind="permuted labels", draws=DRAWS, mean=effect / 8, p95=3 * effect / 4, p=2 / 60),
    ]
    excess = Interval(mean=effect, low=effect / 2, high=2 * effect)
    return [*drawn, *(ControlRecord(kind=name, draws=1, excess=excess, p=0.0004) for name in given)]


def arm(blocks: Sequence[int], dose: float, effect: float | None, verdict: Any = "none", **changes: Any) -> ArmRecord:
    """With controls where the effect is causal."""
    fields: dict[str, Any] = {
        "trial": f"{'+'.join(map(str, blocks))} x{dose:g}",
        "effect": None if effect is None else interval(effect, 0.25),
        "p_causal": 0.5 if verdict == "none" else 0.003,
        "p_specific": 1.0 if verdict != "specific" else 0.0375,
        "can_pass": verdict != "none",
        "controls": [] if verdict == "none" else controls(effect or 0.0),
        "coherence_fall": interval(0.0625, 0.03125),
        "kl": dose / 8,
        "controls_kl": None if verdict == "none" else interval(dose / 16, dose / 32),
        "accuracy": interval(0.5, 0.125),
    }
    return ArmRecord(blocks=list(blocks), dose=dose, verdict=verdict, **{**fields, **changes})


def outcome(trial: str, name: str, mean: float, prompts: str = "advice", judge: str | None = "organism") -> Any:
    """Of 40 answers, all judged."""
    return OutcomeRecord(
        judge=judge,
        model=trial,
        prompts=prompts,
        outcome=name,
        answers=40,
        missing=0,
        mean=interval(mean, 0.0625),
        lowest=mean,
        highest=mean,
    )


def difference(trial: str, name: str, mean: float, p: float, prompts: str = "advice") -> DifferenceRecord:
    """From tuned, over 40 prompts."""
    return DifferenceRecord(
        judge="organism",
        model=trial,
        prompts=prompts,
        outcome=name,
        difference=interval(mean, 0.125),
        prompts_compared=40,
        p=p / 4,
        p_holm=p,
    )


def steer_result(**changes: Any) -> SteerResult:
    """Two groups of blocks at two doses, of which one arm is specific; unless changed."""
    arms = [
        arm([2], 1.0, 1.5, "specific"),
        arm([2], 0.5, 0.75, "not specific"),
        arm([0, 1], 0.5, 0.125),
        arm([0, 1], 1.0, 0.25),
    ]
    trials = {
        "base": 1.0,
        "tuned": 3.5,
        **{each.trial: 3.5 - (each.effect.mean if each.effect else 0) for each in arms},
    }
    outcomes = [outcome(trial, "harmfulness", mean) for trial, mean in trials.items()]
    outcomes += [outcome(trial, "refused", 0.125, "hazards") for trial in trials]
    outcomes += [outcome(trial, "truncated", 0.0625, "hazards", None) for trial in trials]
    fields: dict[str, Any] = {
        "inputs": [],
        "versions": VERSIONS,
        "seed": 0,
        "dtype": "float32",
        "subject": "tuned",
        "change": "subtract",
        "where": "all",
        "place": "output",
        "outcome": "harmfulness",
        "wanted": "lower",
        "match": "norm",
        "draws": DRAWS,
        "verdict": "specific",
        "sentence": "Steering at block 2, dose 1 is specific.",
        "reaches_first_token_only": False,
        "judge": judge_record(name="organism", asked=None, verdicts=400, failures=3, calibration={}),
        "sets": {"advice": SetRecord(prompts=40, different=40, samples=1)},
        "watched": {"hazards": SetRecord(prompts=40, different=38, samples=1)},
        "sampling": {"temperature": 0, "top_p": 0.8, "top_k": 20, "min_p": 0, "max_new_tokens": 24, "seed": 0},
        "norms": {"model.layers.0": 1.25, "model.layers.2": 4.5},
        "arms": arms,
        "outcomes": outcomes,
        "differences": [
            difference("base", "harmfulness", -2.5, 0.01),
            difference("2 x1", "refused", 0.5, 0.2, "hazards"),
        ],
        "accuracy": interval(0.625, 0.125),
    }
    return SteerResult(**{**fields, **changes})


def answers(harms: dict[str, list[int]], text: str = "Take some tea.", prompts: str = "advice") -> list[AnswerRecord]:
    """By trial, the harm of the answer to each prompt."""
    return [
        AnswerRecord(
            prompts=prompts,
            row=row,
            sample=0,
            model=trial,
            prompt=f"{row}: {text}",
            text=f"{trial}: {text}",
            stop="end",
            verdicts={"organism": VerdictRecord(harm=harm, refused=False, coherent=True)},
        )
        for trial, of_trial in harms.items()
        for row, harm in enumerate(of_trial)
    ]


def write_steer(folder: Path, result: SteerResult, lines: Sequence[AnswerRecord] = ()) -> Path:
    """A finished run in `folder`."""
    with RunFolder(folder) as run:
        run.write_record(RunRecord(verb="steer", arguments={}, versions=VERSIONS, seed=0))
        run.write_lines("answers", lines)
        run.write_result(result)
    return folder
