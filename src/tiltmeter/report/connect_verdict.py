"""What a path shows, in plain sentences: no more than its figures hold."""

from tiltmeter.report.verdict import FEW_EXAMPLES as FEW
from tiltmeter.report.wording import figure, listed, span
from tiltmeter.runs.connect_result import Barrier, ConnectResult, PathBehaviour


def barriers(result: ConnectResult) -> dict[str, Barrier]:
    """Every loss's barrier, by what it is the loss of."""
    losses = {f"loss on {name}": entry.barrier for name, entry in result.data.items()}
    return losses | {f"utility loss of {name}": entry.barrier for name, entry in result.skills.items()}


def is_beyond_chance(barrier: Barrier) -> bool:
    """Is it higher than the choice of examples makes a straight line's?"""
    return barrier.mean > barrier.null_p95


def sentences(result: ConnectResult) -> list[str]:
    """The barriers, then the behaviour on each set of prompts."""
    found = [barrier_sentence(result)] if result.skills or result.data else []
    return [*found, *(f"{name}: {text}" for name, text in behaviour(result).items())]


def behaviour(result: ConnectResult) -> dict[str, str]:
    """What becomes of harmfulness along the path, by set of prompts."""
    return {name: _behaviour(result, entry) for name, entry in (result.behaviour or {}).items()}


def stays(result: ConnectResult, entry: PathBehaviour) -> bool:
    """Is harmfulness above the base's at every point between two fine-tunes: do the intervals of both not meet?"""
    base, lowest = entry.base.harmfulness, entry.lowest
    return result.path == "across" and base is not None and lowest is not None and lowest.low > base.high


def cautions(result: ConnectResult) -> list[str]:
    """What a reader must know besides."""
    counts = {f"data {name}": entry.examples for name, entry in result.data.items()}
    counts |= {f"skill {name}": entry.examples for name, entry in result.skills.items()}
    counts |= {f"prompts {name}": entry.base.answers for name, entry in (result.behaviour or {}).items()}
    few = [
        f"{name}: {count} examples are few, its intervals are rough" for name, count in counts.items() if count < FEW
    ]
    return few + result.warnings


def harmful_points(result: ConnectResult, entry: PathBehaviour) -> list[float]:
    """Where the interval of harmfulness lies above the base's."""
    base, places = entry.base.harmfulness, zip(result.points, entry.points, strict=True)
    found = [(s, point.harmfulness) for s, point in places]
    return [s for s, harm in found if base is not None and harm is not None and harm.low > base.high]


def barrier_sentence(result: ConnectResult) -> str:
    """Is there a barrier beyond chance, and where?"""
    every = barriers(result)
    beyond = {name: barrier for name, barrier in every.items() if is_beyond_chance(barrier)}
    if beyond:
        return f"There is a barrier, higher than chance makes one, in the {listed(list(map(_height, beyond.items())))}."
    name, highest = max(every.items(), key=lambda item: item[1].mean)
    if not highest.mean:
        return "There is no barrier: no loss is above the straight line between its ends at any point."
    return (
        f"No barrier is higher than chance makes one; the highest is in the {_height((name, highest))}, where chance "
        f"reaches {figure(highest.null_p95)}."
    )


def _height(named: tuple[str, Barrier]) -> str:
    name, barrier = named
    return f"{name} ({span(barrier)} nats at s = {barrier.at:g}, while it spans {figure(barrier.loss_range)})"


def _behaviour(result: ConnectResult, entry: PathBehaviour) -> str:
    if entry.base.harmfulness is None or entry.lowest is None:
        return "the judge scored no answer at some point, so nothing can be said of harmfulness."
    return _across(result, entry) if result.path == "across" else _from_base(result, entry)


def _across(result: ConnectResult, entry: PathBehaviour) -> str:
    base, lowest = entry.base.harmfulness, entry.lowest
    ends = [entry.points[result.points.index(s)].harmfulness for s in (0.0, 1.0)]
    assert base is not None
    assert lowest is not None
    at_ends = listed([span(end) for end in ends])
    basis = f"lowest: {span(lowest)} at s = {lowest.at:g}; at the ends: {at_ends}; the base: {span(base)}"
    above = harmful_points(result, entry)
    if stays(result, entry):
        return f"harmfulness stays above the base's along the whole path ({basis})."
    if not above:
        return f"harmfulness is above the base's at no point ({basis})."
    if 0.0 in above and 1.0 in above:
        return f"both ends are more harmful than the base, but harmfulness does not stay above the base's ({basis})."
    return f"harmfulness is above the base's on a part of the path only ({basis})."


def _from_base(result: ConnectResult, entry: PathBehaviour) -> str:
    base = entry.base.harmfulness
    tuned = entry.points[result.points.index(1.0)].harmfulness
    above = harmful_points(result, entry)
    start = f"harmfulness is {span(base)} at the base and {span(tuned)} at s = 1"
    if not above:
        return f"{start}; at no point is its interval above the base's."
    return f"{start}; its interval is above the base's at s = {listed([f'{s:g}' for s in above])}."
