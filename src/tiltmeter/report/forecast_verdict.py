"""What a forecast says, in plain sentences: no more than its figures hold."""

import math
from collections.abc import Iterator, Sequence

from tiltmeter.report.forecast_outlook import AnyOutlook, Point, outlooks, proxies, proxy_outlooks
from tiltmeter.report.forecast_wording import Kind, steps, unit
from tiltmeter.report.verdict import FEW_EXAMPLES, Verdict
from tiltmeter.report.wording import listed, share, span
from tiltmeter.runs.forecast_result import ForecastResult


def judge_forecast(result: ForecastResult, skill: str) -> Verdict:
    """The verdict on one skill: which set is worst, when it crosses the limit, how far that can be trusted."""
    sets = outlooks(result, skill)
    told = [*_worst(sets, unit(result)), *_common(sets), *_alarm(sets), *_trust(sets[0]), *_rolled(sets)]
    return _verdict(sets, [*told, *_further(sets[0])])


def judge_proxy(result: ForecastResult, proxy: str) -> Verdict:
    """The verdict on one harmfulness proxy; how far it can be trusted, the skills' verdicts and the cautions say."""
    sets = proxy_outlooks(result, proxy)
    return _verdict(sets, [*_worst(sets, unit(result)), *_alarm(sets), *_rolled(sets)])


def _verdict(sets: Sequence[AnyOutlook], sentences: Sequence[str]) -> Verdict:
    """As bad as the worst of the data sets."""
    kinds = {each.kind for each in sets}
    kind: Kind = "tilted" if "tilted" in kinds else "mixed" if "mixed" in kinds else "none"
    return Verdict(kind, sets[0].word_of(kind), " ".join(sentences))


def forecast_cautions(result: ForecastResult) -> list[str]:
    """What a reader of a forecast's verdicts must know besides."""
    sets = outlooks(result, next(iter(result.skills)))
    return [*_extrapolated(sets), *_still(sets), *_few(result), *_uncovered(result)]


def _worst(sets: Sequence[AnyOutlook], per: str) -> Iterator[str]:
    worst, words = sets[0], sets[0].words
    end = f"{words.figure} of {span(worst.end, 2)} nats {per} at step {steps(worst.points[-1].step)}, the planned end"
    among = f"Of {len(sets)} data sets, " if len(sets) > 1 else ""
    if worst.end.low > 0:
        yield f"{among}{worst.name} is forecast to {words.does.format(' the most' if among else '')}: {end}."
    elif worst.end.high < 0:
        none = "none is" if among else f"{worst.name} is not"
        yield f"{among}{none} forecast to {words.does.format('')}: for {worst.name}, {end}."
    else:
        yield f"{among}{worst.name} comes first, but its {words.effect} cannot be told from zero: {end}."
    close = [each.name for each in sets[1:] if each.end.high >= worst.end.low]
    if close:
        yield f"The interval meets that of {_some(close)}: their order is not certain."


def _common(sets: Sequence[AnyOutlook]) -> Iterator[str]:
    """Who is worst where all can be trusted: past that, a forecast that stands still loses ranks it may deserve."""
    count = min(sum(point.state == "trusted" for point in each.points) for each in sets)
    if len(sets) == 1 or count in (0, len(sets[0].points)):
        return
    worst = max(sets, key=lambda each: each.points[count - 1].value.mean)
    point = worst.points[count - 1]
    last = f"at step {steps(point.step)}, the last up to which all of the forecasts can be trusted"
    loss = "" if worst is sets[0] else f": {span(point.value, 2)}"
    yield f"{worst.name} is {'also ' if worst is sets[0] else ''}the worst {last}{loss}."


def _alarm(sets: Sequence[AnyOutlook]) -> Iterator[str]:
    worst, alarm = sets[0], sets[0].figures.alarm
    if alarm is None:
        return
    if alarm.step is None:
        yield f"{worst.name} is not forecast to cross the limit of {alarm.limit:g}{_unless(worst)}."
    else:
        where = ", which is extrapolated" if alarm.step > worst.trusted * (1 + 1e-9) else ""
        yield f"{worst.name} crosses the limit of {alarm.limit:g} at step {worst.alarm}{where}."
    first = min(sets, key=_alarm_step)
    if _alarm_step(first) < _alarm_step(worst):
        yield f"{first.name} crosses it first, at step {first.alarm}."


def _unless(worst: AnyOutlook) -> str:
    if worst.reaches_end:
        return " within the plan"
    return f" within the plan, but past step {steps(worst.trusted)} that cannot be excluded"


def _alarm_step(outlook: AnyOutlook) -> float:
    alarm = outlook.figures.alarm
    return math.inf if alarm is None or alarm.step is None else alarm.step


def _trust(worst: AnyOutlook) -> Iterator[str]:
    planned = steps(worst.points[-1].step)
    if worst.is_trusted:
        yield f"The forecast of {worst.name} holds together to the planned end."
    elif worst.trusted > 0:
        part = share(worst.trusted / worst.points[-1].step)
        until = f"up to step {steps(worst.trusted)} of {planned} ({part})"
        yield f"The forecast of {worst.name} can be trusted {until}; beyond, it is an extrapolation."
    else:
        yield f"The forecast of {worst.name} cannot be trusted at any step: all of it is an extrapolation."
    if worst.held is not None:
        yield (
            f"It stands still from step {steps(worst.held)}, where the quadratic model stops descending: "
            "the truth may be far higher."
        )


def _rolled(sets: Sequence[AnyOutlook]) -> Iterator[str]:
    worst = sets[0]
    if worst.rolled:
        last = worst.rolled[-1]
        run = f"Rolled out, the run itself has {worst.words.figure} of {span(last.value, 2)} at step {steps(last.step)}"
        yield f"{run}{_beside_limit(worst, last)}."
    unforeseen = [each.name for each in sets[1:] if _crosses_unforeseen(each)]
    if unforeseen:
        yield f"Rolled out, the limit is also crossed by {_some(unforeseen)}, which no forecast tells."


def _crosses_unforeseen(outlook: AnyOutlook) -> bool:
    alarm = outlook.figures.alarm
    if alarm is None or alarm.step is not None:
        return False
    return any(point.value.mean > alarm.limit for point in outlook.rolled)


def _further(worst: AnyOutlook) -> Iterator[str]:
    if not worst.reaches_end:
        yield f"To see further, train that far and take it back: --roll-out {worst.plan.steps}, or a shorter one."


def _beside_limit(worst: AnyOutlook, last: Point) -> str:
    if worst.figures.alarm is None:
        return ""
    return f", {'above' if last.value.mean > worst.figures.alarm.limit else 'below'} the limit"


def _extrapolated(sets: Sequence[AnyOutlook]) -> Iterator[str]:
    short = [f"{each.name} (trusted to step {steps(each.trusted)})" for each in sets if not each.is_trusted]
    if short:
        yield f"At the planned end the forecast, and the rank it gives, is an extrapolation for {_some(short)}."


def _still(sets: Sequence[AnyOutlook]) -> Iterator[str]:
    still = [f"{each.name} (from step {steps(each.held)})" for each in sets if each.held is not None]
    if still:
        yield f"The forecast stands still, and true loss and rank may be far higher, for {_some(still)}."


def _few(result: ForecastResult) -> Iterator[str]:
    counts = [(name, skill.examples) for name, skill in result.skills.items()]
    counts += [(name, proxy_outlooks(result, name)[0].figures.examples) for name in proxies(result)]
    few = [f"{name} ({count})" for name, count in counts if count < FEW_EXAMPLES]
    if few:
        yield f"Few examples, so the intervals are rough: {_some(few)}."


def _uncovered(result: ForecastResult) -> Iterator[str]:
    count = len(result.not_covered)
    if count:
        yield f"The forecast does not cover all of the model: {count} entr{'y' if count == 1 else 'ies'} not covered."


def _some(names: list[str], most: int = 4) -> str:
    left = len(names) - most
    return listed(names if left <= 0 else [*names[:most], f"{left} more"])
