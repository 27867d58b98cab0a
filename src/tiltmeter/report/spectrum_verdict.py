"""What a spectrum says, in plain sentences: no more than the figures hold."""

from dataclasses import dataclass

from tiltmeter.report.wording import figure, listed, share, times
from tiltmeter.runs.results import Interval
from tiltmeter.runs.spectrum_result import RankBound, Shape, SizeRow, SkillSpectrum, SpectrumResult, Split

LEVEL = 1.2  # growth of the participation ratio per doubling of N under which it counts as level


@dataclass(frozen=True)
class SpectrumVerdict:
    """One skill's verdict: a word and a few sentences."""

    word: str
    sentence: str


def judge_spectrum(skill: SkillSpectrum, dims: int) -> SpectrumVerdict:
    """Sharper than its nulls: the d largest eigenvalues hold a larger share of the trace than in each null.

    Larger: the whole interval of the skill is above the null's largest draw. Asked twice, of the spectrum as it is and
    of the one with gradients of equal length.
    """
    plain, equal = _exceeded(skill, "top_share"), _exceeded(skill, "equalised_top_share")
    if len(plain) == len(equal) == len(skill.nulls):
        word = "sharper than its nulls"
    else:
        word = "partly sharper" if plain or equal else "no sharper than its nulls"
    parts = [_shares(skill, dims), f"{_sharper(plain)}; with gradients of equal length: {_sharper(equal).lower()}."]
    return SpectrumVerdict(word, " ".join([*parts, _growth(skill.sizes)]))


def describe(skill: SkillSpectrum, dims: int) -> list[str]:
    """What else was measured, a sentence or two each."""
    found = (
        describe_labels(skill, dims),
        describe_rotations(skill, dims),
        describe_rank_bound(skill.rank_bound, skill.examples),
    )
    return [sentence for sentence in found if sentence]


def describe_labels(skill: SkillSpectrum, dims: int) -> str:
    """Completions of the model's own beside the reference completions."""
    if skill.labels is None:
        return f"Fewer than {dims} directions have curvature: reference and sampled completions cannot be compared."
    return (
        f"Completions drawn from the model: their {dims} directions share {percent(skill.labels.overlap)} with the "
        f"skill's ({_halves(skill.split)}), and the trace is {times(skill.labels.trace_ratio)} the skill's."
    )


def describe_rotations(skill: SkillSpectrum, dims: int) -> str:
    """The last checkpoint, and whether the bound says anything at any of them; "" without checkpoints."""
    if not skill.rotations:
        return ""
    last = skill.rotations[-1]
    bounds = [row.turned.bound for row in skill.rotations if row.turned is not None and row.turned.bound is not None]
    informative = sum(bound < 1 for bound in bounds)
    end = (
        f"The Davis-Kahan bound is informative (below 1, with a gap) at {informative} of {len(skill.rotations)} "
        f"checkpoint{'' if len(skill.rotations) == 1 else 's'}."
    )
    if last.turned is None:
        return f"At {last.checkpoint} fewer than {dims} directions have curvature. {end}"
    return (
        f"At {last.checkpoint} the {dims} directions share {percent(last.turned.overlap)} with the base's "
        f"({_halves(skill.split)}). {end}"
    )


def describe_rank_bound(bound: RankBound, examples: int) -> str:
    """Whether the rank bound constrains anything beyond the number of examples."""
    head = f"99 % of the output gradients' energy lies in {share(bound.median_share)} of the output width (median)"
    if not bound.below_n:
        return (
            f"{head}, but r times the input width is at least N = {examples} in every module: the bound says nothing."
        )
    return f"{head}; r times the input width is below N = {examples} in {bound.below_n} of {bound.modules} modules."


def explain_nulls(result: SpectrumResult) -> str:
    """What the nulls of a spectrum are."""
    return (
        f"N gradients have at most N directions whatever the model. Nulls ({result.draws} of each): random text keeps "
        "lengths and special tokens and draws all others evenly from the vocabulary; shuffled completions give every "
        "prompt another example's answer, which changes little where the answers are alike."
    )


def _exceeded(skill: SkillSpectrum, key: str) -> list[str]:
    own = _interval(skill.data, key)
    return [name for name, null in skill.nulls.items() if own.low > _interval(null, key).high]


def _interval(shape: Shape, key: str) -> Interval:
    found: Interval = getattr(shape, key)
    return found


def _shares(skill: SkillSpectrum, dims: int) -> str:
    nulls = [f"{name} {_range(null.top_share)}" for name, null in skill.nulls.items()]
    own = skill.data.top_share
    return (
        f"The {dims} largest of at most {skill.examples} directions hold {percent(own.mean)} [{percent(own.low)}, "
        f"{percent(own.high)}] of the curvature; {', '.join(nulls)}."
    )


def _range(interval: Interval) -> str:
    low, high = percent(interval.low), percent(interval.high)
    return low if low == high else f"{low} to {high}"


def percent(value: float) -> str:
    """A share in per cent, with the digits that tell 99 % from 99.9 %."""
    return f"{figure(100 * value)} %"


def _sharper(names: list[str]) -> str:
    return f"Sharper than {listed(names)}" if names else "Not sharper than either null"


def _growth(sizes: list[SizeRow]) -> str:
    own = [row for row in sizes if row.text == "data"][-2:]
    if len(own) < 2:
        return "Too few examples to see how it grows with N."
    half, whole = own
    growth = whole.participation_ratio.mean / half.participation_ratio.mean if half.participation_ratio.mean else 1.0
    end = "more examples would show more directions" if growth > LEVEL else "about level"
    return f"From {half.size} to {whole.size} examples the participation ratio grows {times(growth)}: {end}."


def _halves(split: Split | None) -> str:
    if split is None:
        return "too few examples to compare halves"
    return f"two halves of the skill: {_range(split.overlap)}"
