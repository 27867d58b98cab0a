"""What a matrix of transfers shows, in plain sentences: no more than its routes hold."""

from collections import Counter
from collections.abc import Iterator

from tiltmeter.report.judge_wording import change
from tiltmeter.report.steer_verdict import KINDS, WORDS
from tiltmeter.report.verdict import FEW_EXAMPLES as FEW
from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import listed
from tiltmeter.runs.steer_result import SteerVerdict
from tiltmeter.runs.transfer_result import RouteRecord, TransferResult

ORDER: tuple[SteerVerdict, ...] = ("specific", "not specific", "none", "broke")


def ways(result: TransferResult) -> list[str]:
    """Those that lead from one model to another, in the order of the result."""
    return list(dict.fromkeys(route.way for route in result.routes if route.source != route.target))


def matrix(result: TransferResult, way: str) -> dict[tuple[str, str], RouteRecord]:
    """Routes of one way by source and target; on the diagonal those along a model's own direction."""
    own = "span, own" if way.startswith("span") else "own"
    return {
        (route.source, route.target): route
        for route in result.routes
        if route.way == (own if route.source == route.target else way)
    }


def findings(result: TransferResult) -> list[Verdict]:
    """Within models, and across them by each way."""
    within = [route for route in result.routes if route.way == "own"]
    across = {way: [route for route in result.routes if route.way == way] for way in ways(result)}
    return [_counted("Within a model", within), *(_counted(f"Across, {way}", routes) for way, routes in across.items())]


def cautions(result: TransferResult) -> list[str]:
    """What a reader must know besides."""
    return [*_maps(result), *_few(result), *result.warnings]


def best(result: TransferResult, way: str) -> str:
    """The largest effect of a way, in words."""
    routes = [route for route in matrix(result, way).values() if route.source != route.target and route.effect]
    if not routes:
        return "no answer has a verdict"
    route = max(routes, key=lambda each: each.effect.mean if each.effect else 0.0)
    assert route.effect is not None
    return f"{route.source} to {route.target}: {change(result.outcome, route.effect)}"


def _counted(tag: str, routes: list[RouteRecord]) -> Verdict:
    counts = Counter(route.verdict for route in routes)
    said = [f"{counts[verdict]} {WORDS[verdict].lower()}" for verdict in ORDER if counts[verdict]]
    first = next(verdict for verdict in ORDER if counts[verdict])
    return Verdict(KINDS[first], tag, f"of {len(routes)} routes {listed(said)}.")


def _maps(result: TransferResult) -> Iterator[str]:
    poor = [found for found in result.maps if found.r2 <= found.r2_shuffled or found.r2 <= 0]
    if poor:
        names = listed([f"{found.source} to {found.target} ({found.map})" for found in poor[:5]])
        yield f"maps that predict nothing on held-out prompts: {names}{' and more' if len(poor) > 5 else ''}"
    alike = [found for found in result.maps if abs(found.cosine) <= found.random_cosine]
    if alike:
        yield (
            f"in {len(alike)} of {len(result.maps)} maps the carried direction is no closer to the target's own than "
            "carried random ones are"
        )


def _few(result: TransferResult) -> Iterator[str]:
    for name, entry in result.sets.items():
        if entry.different < FEW:
            yield f"{name}: {entry.different} prompts are few, whatever the number of answers to each"
