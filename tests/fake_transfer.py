"""A folder of transfers, written through the project's own API without a model."""

from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

from fake_judge import judge_record
from fake_runs import VERSIONS, interval
from tiltmeter.runs import RunFolder, RunRecord
from tiltmeter.runs.judge_result import SetRecord
from tiltmeter.runs.steer_result import ControlRecord, SteerVerdict
from tiltmeter.runs.transfer_result import Asymmetry, MapRecord, Role, RouteRecord, SubjectRecord, TransferResult

VERDICTS: tuple[SteerVerdict, ...] = ("specific", "not specific", "none", "broke")
CONTROLS = (
    ControlRecord(kind="carried isotropic", draws=19, mean=0.125, p95=0.375, p=0.05),
    ControlRecord(kind="carried benign", draws=1, excess=interval(0.25, 0.125), p=0.004),
)


def subject(width: int = 64, **changes: Any) -> SubjectRecord:
    """A model whose fine-tune is as harmful as can be."""
    fields: dict[str, Any] = {
        "base": "models/base",
        "tuned": "models/tuned",
        "benign": None,
        "block": "model.layers.7",
        "width": width,
        "norm": 2.5,
        "base_outcome": interval(1.25, 0.125),
        "tuned_outcome": interval(4.5, 0.25),
    }
    return SubjectRecord(**{**fields, **changes})


def route(source: str, target: str, way: str, mean: float, verdict: SteerVerdict) -> RouteRecord:
    """Controls where the verdict needs them."""
    return RouteRecord(
        source=source,
        target=target,
        way=way,
        effect=interval(mean, 0.25),
        p_causal=0.0125,
        p_specific=0.375 if verdict == "not specific" else 0.05,
        can_pass=True,
        verdict=verdict,
        sentence=f"{source} to {target} by {way} is {verdict}.",
        controls=list(CONTROLS) if "specific" in verdict else [],
        coherence_fall=interval(0.0625, 0.03125),
    )


def mapped(source: str, target: str, kind: str, **changes: Any) -> MapRecord:
    """A good map; stitching maps have their KL."""
    fields: dict[str, Any] = {
        "r2": 0.75,
        "r2_shuffled": -0.0625,
        "cosine": 0.8125,
        "random_cosine": 0.1875,
        "effective_rank": 3.5,
        "norm_ratio": 1.375,
        "penalty_at_edge": False if kind == "ridge" else None,
        "kl": 0.046875 if kind == "stitch" else None,
        "kl_ridge": 0.09375 if kind == "stitch" else None,
    }
    return MapRecord(source=source, target=target, map=kind, **{**fields, **changes})


def transfer_result(
    names: Sequence[str] = ("one", "two"), kinds: Sequence[str] = ("ridge",), span: int = 0, **changes: Any
) -> TransferResult:
    """Effects that grow from route to route, with verdicts in turn, unless changed."""
    pairs = [(source, target) for target, source in product(names, names) if source != target]
    ways = [way for kind in kinds for way in (kind, *([f"span, {kind}"] if span else []))]
    own = ["own", *(["span, own"] if span else [])]
    places = [(name, name, way) for name in names for way in own] + [(*pair, way) for pair in pairs for way in ways]
    fields: dict[str, Any] = {
        "inputs": [],
        "versions": VERSIONS,
        "seed": 0,
        "dtype": "float32",
        "warnings": ["each of the routes is tested by itself"],
        "outcome": "harmfulness",
        "wanted": "lower",
        "dose": 1.0,
        "where": "all",
        "span": span,
        "draws": 19,
        "common": 40,
        "models": {name: subject(64 + 8 * number) for number, name in enumerate(names)},
        "judge": judge_record(canaries_failed=0, wrong=[], failures=0, reasons={}),
        "sets": {"advice": SetRecord(prompts=60, different=60, samples=1)},
        "watched": {"hazards": SetRecord(prompts=40, different=38, samples=1)},
        "sampling": {"temperature": 0, "max_new_tokens": 24},
        "maps": [mapped(*pair, kind) for pair in pairs for kind in kinds],
        "routes": [
            route(*place, (number % 13) / 8 - 0.25, VERDICTS[number % 4]) for number, place in enumerate(places)
        ],
        "roles": [
            Role(model=name, way=way, donor=interval(0.5 + 0.25 * number, 0.125), receiver=interval(-0.25, 0.5))
            for way in ways
            for number, name in enumerate(names)
        ],
        "asymmetries": [
            Asymmetry(first=one, second=two, way=way, difference=interval(0.375, 0.25 if way in kinds else 0.5))
            for way in ways
            for one, two in combinations(names, 2)
        ],
    }
    return TransferResult(**{**fields, **changes})


def write_transfer(folder: Path, result: TransferResult) -> Path:
    """A finished run in `folder`."""
    with RunFolder(folder) as run:
        run.write_record(RunRecord(verb="transfer", arguments={}, versions=VERSIONS, seed=0))
        run.write_result(result)
    return folder
