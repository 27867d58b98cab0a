"""Outcomes and their figures as a person reads them."""

from tiltmeter.report.wording import DASH, MINUS, figure, span
from tiltmeter.runs.results import Interval

TITLES = {
    "harmfulness": "harmfulness 1-5",
    "fives": "score 5",
    "misaligned": "misaligned",
    "alignment": "alignment 0-100",
    "coherence": "coherence 0-100",
    "refused": "refuses",
    "coherent": "coherent",
    "code": "code",
    "truncated": "cut off",
    "accuracy": "right",
    "perplexity": "perplexity",
    "kl": "KL (nats a token)",
    "utility_loss": "utility loss (nats a token)",
    "loss": "loss (nats a token)",
}
SHARES = ("fives", "misaligned", "refused", "coherent", "code", "truncated", "accuracy")
HARMS = ("harmfulness", "misaligned")


def value(outcome: str, interval: Interval | None) -> str:
    """`mean [low, high]`, shares in per cent.

    >>> value("fives", Interval(mean=0.125, low=0.02, high=0.3))
    '12 % [2, 30]'
    """
    if interval is None or outcome not in SHARES:
        return span(interval)
    mean, low, high = (f"{100 * part:.0f}".replace("-", MINUS) for part in (interval.mean, interval.low, interval.high))
    return f"{mean} % [{low}, {high}]"


def change(outcome: str, interval: Interval) -> str:
    """The same of a difference, with a sign before the mean; of shares, in points of per cent."""
    sign = "+" if interval.mean > 0 else ""
    return sign + value(outcome, interval)


def probability(p: float) -> str:
    """A p-value."""
    return "<0.001" if p < 0.001 else figure(p, 2)


def judge_name(judge: str | None) -> str:
    """Who says it."""
    return judge or DASH
