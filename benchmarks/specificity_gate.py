"""How often the specificity gate is wrong, and what it finds: real control vectors, simulated answers.

python benchmarks/specificity_gate.py --out benchmarks/specificity_gate.json

Activations of width 64 with a steep spectrum, a base and a tuned model, and a readout along which a push lowers the log
odds of a harmful answer, in part by group of prompts; any push lowers it somewhat. Directions and controls are made as
for models. Null directions:

- like activations: one more draw with the activations' covariance. The hardest case: one kind of control is like it.
- random: one more isotropic draw.
- no shift: a difference in means between models that differ by noise alone.
- no effect: a real difference in means, and pushes change nothing.

Beside the gate's rate of "specific" stand those of weaker gates on the same batteries: isotropic controls alone, and no
correction for arms. Power: the shift between the models has a given cosine with the readout; also where the permuted
means come from plain swaps within pairs, without the shift taken out.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import expit
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from tiltmeter.activations.specificity.arm import Arm
from tiltmeter.activations.specificity.controls import anisotropic, isotropic, matched, orthogonal, permuted_means
from tiltmeter.activations.specificity.gate import LEVEL, Battery, gate

WIDTH, PAIRS, TOP, GROUPS, ANSWERS = 64, 64, 8, 5, 8
GAIN, GENERIC = 4.0, 0.7  # log odds for a push of unit norm along the readout, and along any vector
CHUNK = 50


@dataclass(frozen=True)
class Setting:
    """The size of a battery."""

    prompts: int
    draws: int
    blocks: int
    doses: tuple[float, ...] = (1.0,)


MAIN = Setting(20, 59, 3)
OTHERS = (Setting(8, 59, 3), Setting(20, 19, 1), Setting(20, 119, 2, (0.25, 0.5, 1.0)), Setting(40, 59, 3))
COSINES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Case:
    """What the direction is: a null by name, or a shift of the given cosine with the readout.

    Attributes:
        plain_swaps: permuted means by plain swaps within pairs, which leave some of the shift in.
    """

    null: str | None = None
    cosine: float = 0.0
    plain_swaps: bool = False


NULLS = tuple(map(Case, ("like activations", "random", "no shift", "no effect")))


def battery(case: Case, setting: Setting, seed: int) -> Battery:
    """One battery, blocks independent of each other."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    harm = rng.normal(1.5, 1, setting.prompts)
    unsteered = rng.binomial(ANSWERS, expit(harm)) / ANSWERS
    arms = [arm for block in range(setting.blocks) for arm in _block(case, setting, block, rng, harm, unsteered)]
    return gate(arms, (0.0, 1.0))


def _block(
    case: Case,
    setting: Setting,
    block: int,
    rng: np.random.Generator,
    harm: NDArray[np.float64],
    unsteered: NDArray[np.float64],
) -> Iterator[Arm]:
    seed = int(rng.integers(2**40))
    scales = torch.arange(1.0, WIDTH + 1).double() ** -1
    base, noise = torch.from_numpy(rng.standard_normal((2, PAIRS, WIDTH)))
    base, readout = base * scales, _top(rng)
    shift = case.cosine * readout + (1 - case.cosine**2) ** 0.5 * _orthogonal_to(readout, rng)
    tuned = base + 0.1 * noise + (0.0 if case.null == "no shift" else shift)
    made = {
        "like activations": partial(anisotropic, base, 1, seed + 1),
        "random": partial(isotropic, shift, 1, seed + 1),
    }
    v = made[case.null]() if case.null in made else (tuned - base).mean(0)[None]
    vectors = {
        "isotropic": isotropic(v[0], setting.draws, seed),
        "anisotropic": anisotropic(base, setting.draws, seed),
        "orthogonal": orthogonal(v[0], setting.draws, seed),
        "permuted means": (_plain_swaps if case.plain_swaps else permuted_means)(base, tuned, setting.draws, seed),
    }
    groups = torch.stack([readout + 0.5 * _top(rng) for _ in range(GROUPS)])
    for dose in setting.doses:
        steered = {
            kind: _outcomes(matched(drawn, 1.0) @ groups.T, case, dose, harm, rng)
            for kind, drawn in {"v": v, **vectors}.items()
        }
        yield Arm(str(block), dose, unsteered, steered.pop("v")[0], steered, {})


def _plain_swaps(base: Tensor, tuned: Tensor, draws: int, seed: int) -> Tensor:
    signs = torch.randn((draws, PAIRS), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sign()
    return signs @ (tuned - base)


def _outcomes(
    along: Tensor, case: Case, dose: float, harm: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """[D, P] shares of harmful answers after D pushes; `along` [D, groups] are their products with the readouts."""
    push = dose * (GAIN * along.numpy()[:, np.arange(len(harm)) % GROUPS] + GENERIC)
    return rng.binomial(ANSWERS, expit(harm - (case.null != "no effect") * push)) / ANSWERS


def _top(rng: np.random.Generator) -> Tensor:
    """A random unit vector where activations vary most."""
    vector = torch.zeros(WIDTH, dtype=torch.float64)
    vector[:TOP] = torch.from_numpy(rng.standard_normal(TOP))
    return normalize(vector, dim=0)


def _orthogonal_to(readout: Tensor, rng: np.random.Generator) -> Tensor:
    vector = torch.from_numpy(rng.standard_normal(WIDTH))
    return normalize(vector - vector @ readout * readout, dim=0)


@dataclass(frozen=True)
class Row:
    """Shares of batteries; `specific_interval` is exact (Clopper and Pearson).

    Attributes:
        isotropic_only: called specific if other kinds of controls were left out.
        no_holm: called specific at the level in any arm, without a correction for their number.
        causal: at least one arm with an effect beyond chance.
    """

    case: Case
    setting: Setting
    batteries: int
    specific: float
    specific_interval: tuple[float, float]
    not_specific: float
    none: float
    isotropic_only: float
    no_holm: float
    causal: float


def chunk(case: Case, setting: Setting, seeds: Sequence[int]) -> Counter[str]:
    """How many batteries of these seeds have each verdict, also by weaker gates."""
    found: Counter[str] = Counter()
    for seed in seeds:
        each = battery(case, setting, seed)
        found[each.verdict] += 1
        found["causal"] += any(arm.causal for arm in each.arms)
        found["no_holm"] += any(arm.causal and arm.measured.p_specific <= LEVEL for arm in each.arms)
        found["isotropic_only"] += any(
            arm.causal and arm.measured.drawn[0].p * len(each.arms) <= LEVEL for arm in each.arms
        )
    return found


def row(case: Case, setting: Setting, batteries: int, found: Counter[str]) -> Row:
    """Counts as shares."""
    interval = binomtest(found["specific"], batteries).proportion_ci()
    names = ("not specific", "none", "isotropic_only", "no_holm", "causal")
    return Row(
        case,
        setting,
        batteries,
        found["specific"] / batteries,
        (float(interval.low), float(interval.high)),
        *(found[name] / batteries for name in names),
    )


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    names = ("specific", "95 % interval", "not specific", "none", "isotropic only", "no Holm")
    shown = Table("direction", "prompts", "draws", "arms", *names)
    for each in rows:
        size = each.setting
        low, high = each.specific_interval
        shares = (each.not_specific, each.none, each.isotropic_only, each.no_holm)
        shown.add_row(
            each.case.null or f"cosine {each.case.cosine:g}{', plain swaps' * each.case.plain_swaps}",
            *(str(number) for number in (size.prompts, size.draws, size.blocks * len(size.doses))),
            f"{each.specific:.1%}",
            f"{low:.1%} to {high:.1%}",
            *(f"{share:.1%}" for share in shares),
        )
    return shown


def main(
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")],
    batteries: Annotated[int, typer.Option(help="Of each null.")] = 2000,
    powered: Annotated[int, typer.Option(help="Batteries of each cosine.")] = 200,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Simulates, and writes the shares of verdicts."""
    plan = [(case, MAIN, batteries) for case in NULLS]
    plan += [(NULLS[0], setting, batteries) for setting in OTHERS]
    plan += [(Case(cosine=cosine), setting, powered) for setting, cosine in product((MAIN, *OTHERS), COSINES)]
    plan += [(Case(cosine=cosine, plain_swaps=True), MAIN, powered) for cosine in COSINES]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        rows = [_counted(pool, *each) for each in tqdm(plan, "cases")]
    Console(width=140).print(table(rows))
    command = f"python benchmarks/specificity_gate.py --out {out} --batteries {batteries} --powered {powered}"
    out.write_text(json.dumps({"command": command, "rows": [asdict(each) for each in rows]}, indent=1) + "\n")


def _counted(pool: ProcessPoolExecutor, case: Case, setting: Setting, batteries: int) -> Row:
    seeds = [range(start, min(start + CHUNK, batteries)) for start in range(0, batteries, CHUNK)]
    return row(case, setting, batteries, sum(pool.map(partial(chunk, case, setting), seeds), Counter()))


if __name__ == "__main__":
    typer.run(main)
