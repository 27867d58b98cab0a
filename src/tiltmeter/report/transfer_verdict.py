"""What a matrix of transfers shows, in plain sentences: no more than its routes hold."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tiltmeter.report.judge_wording import change
from tiltmeter.report.steer_verdict import KINDS, doubts, unwatched
from tiltmeter.report.verdict import FEW_EXAMPLES as FEW
from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import listed
from tiltmeter.runs.steer_result import SteerVerdict
from tiltmeter.runs.transfer_result import RouteRecord, TransferResult

NAMES = {"own": "own", "ridge": "ridge", "procrustes": "Procrustes", "cca": "CCA", "stitch": "stitching"}
# The verdict of one route, and of several.
SAID: Mapping[SteerVerdict, tuple[str, str]] = {
    "specific": ("is specific", "are specific"),
    "not specific": ("is causal but not specific", "are causal but not specific"),
    "none": ("has no wanted effect", "have no wanted effect"),
    "broke": ("broke the model", "broke the model"),
}


def ways(result: TransferResult) -> list[str]:
    """Those that lead from one model to another, in the order of the result."""
    return list(dict.fromkeys(route.way for route in result.routes if route.source != route.target))


def own_way(way: str) -> str:
    """The way within a model that belongs to a way between models."""
    return "span, own" if way.startswith("span") else "own"


def title_of(result: TransferResult, way: str) -> str:
    """A way in words."""
    _, several, name = way.rpartition("span, ")
    title = NAMES.get(name, name)
    return f"{title}, {result.span or 'several'} directions at once" if several else title


def matrix(result: TransferResult, way: str) -> dict[tuple[str, str], RouteRecord]:
    """Routes of one way by source and target; on the diagonal those along a model's own direction."""
    return {
        (route.source, route.target): route
        for route in result.routes
        if route.way == (own_way(way) if route.source == route.target else way)
    }


def findings(result: TransferResult) -> list[Verdict]:
    """Within models, and across them by each way."""
    within = [route for route in result.routes if route.way == "own"]
    across = {way: [route for route in result.routes if route.way == way] for way in ways(result)}
    return [
        _counted(result, "Within a model", within),
        *(_counted(result, f"Across by {title_of(result, way)}", routes) for way, routes in across.items()),
    ]


def cautions(result: TransferResult) -> list[str]:
    """What a reader must know besides."""
    return [
        *_other_way(result),
        *_maps(result),
        *_few(result),
        *unwatched(result.watched),
        *doubts(result.judge),
        *result.warnings,
    ]


def counted(routes: Sequence[RouteRecord]) -> str:
    """How many routes have which verdict.

    >>> route = RouteRecord.model_construct
    >>> counted([route(verdict="none"), route(verdict="specific"), route(verdict="none")])
    'of 3 routes, 1 is specific and 2 have no wanted effect'
    >>> counted([route(verdict="broke")] * 2), counted([route(verdict="none")])
    ('both routes broke the model', 'the one route has no wanted effect')
    """
    found = _found(Counter(route.verdict for route in routes))
    if len(found) == 1:
        one, more = SAID[found[0][0]]
        everything = {1: f"the one route {one}", 2: f"both routes {more}"}
        return everything.get(len(routes), f"all {len(routes)} routes {more}")
    said = [f"{count} {SAID[verdict][count > 1]}" for verdict, count in found]
    return f"of {len(routes)} routes, {listed(said)}"


def _found(counts: Mapping[SteerVerdict, int]) -> list[tuple[SteerVerdict, int]]:
    """From the strongest verdict to the weakest."""
    return [(verdict, counts[verdict]) for verdict in SAID if verdict in counts]


def _counted(result: TransferResult, tag: str, routes: Sequence[RouteRecord]) -> Verdict:
    first = _found(Counter(route.verdict for route in routes))[0][0]
    text = counted(routes)
    return Verdict(KINDS[first], tag, f"{text[0].upper()}{text[1:]}. {_largest(result, routes)}")


def _largest(result: TransferResult, routes: Sequence[RouteRecord]) -> str:
    """The largest effect of those that did not break the model."""
    known = [(route.effect, route) for route in routes if route.effect is not None and route.verdict != "broke"]
    if not known:
        return "No route has an effect to speak of."
    effect, route = max(known, key=lambda pair: pair[0].mean)
    place = route.target if route.source == route.target else f"{route.source} to {route.target}"
    return f"Largest effect: {change(result.outcome, effect)}, {place}."


def _other_way(result: TransferResult) -> Iterator[str]:
    """The gate, which asks for the wanted effect, says nothing of these."""
    against = [route for route in result.routes if route.effect is not None and route.effect.high < 0]
    if against:
        yield f"in {len(against)} of {len(result.routes)} routes the outcome went the other way, its interval beyond 0"


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
