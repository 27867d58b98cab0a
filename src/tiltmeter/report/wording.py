"""Figures as a person reads them."""

from tiltmeter.runs.results import Interval

DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(value: float | None, digits: int = 3) -> str:
    """`value` with some significant digits; a dash where there is none.

    >>> figure(0.012345), figure(15.46), figure(123456.0)
    ('0.0123', '15.5', '1.23\u2009\xd7\u200910⁵')
    """
    if value is None:
        return DASH
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if -3 <= int(exponent) < 5:
        return f"{value:.{max(0, digits - 1 - int(exponent))}f}".replace("-", MINUS)
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", MINUS)
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    if digits == 1 and mantissa == "1":
        return power
    return f"{mantissa}\u2009{TIMES}\u2009{power}"


def span(interval: Interval | None, digits: int = 3) -> str:
    """`mean [low, high]`."""
    if interval is None:
        return DASH
    return f"{figure(interval.mean, digits)} [{figure(interval.low, digits)}, {figure(interval.high, digits)}]"


def share(value: float | None) -> str:
    """A share in per cent.

    >>> share(0.983)
    '98 %'
    """
    return DASH if value is None else f"{100 * value:.0f} %"


def times(ratio: float | None) -> str:
    """A ratio as a multiple."""
    return DASH if ratio is None else f"{figure(ratio, 2)}{TIMES}"


def listed(parts: list[str]) -> str:
    """Parts joined as in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
