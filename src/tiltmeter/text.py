"""Text from outside the project (data sets, models, answers, file names) made safe to show."""

import re
import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # letters of several scripts need them, and they hide nothing
_SUSPECT = re.compile(r"[^ -~]")


def inert(text: str, *, keep: str = "\n\t") -> str:
    r"""`text` with each control and format character replaced by its escape, in plain letters.

    Escape sequences, carriage returns, text-direction overrides, invisible tags, line separators and lone surrogates
    can neither drive a terminal nor disguise what is shown. Markup is not touched: HTML still needs escaping.

    Args:
        keep: characters left as they are; pass "" where the text must stay on one line.

    >>> print(inert("\x1b[31mred\r\n", keep=""))
    \x1b[31mred\r\n
    >>> print(inert("a\u2028b\u202ec"))
    a\u2028b\u202ec
    """
    return _SUSPECT.sub(lambda found: _visible(found[0], keep), text)


def _visible(character: str, keep: str) -> str:
    if character in keep or character in _JOINERS or unicodedata.category(character) not in _HIDDEN:
        return character
    return ascii(character)[1:-1]
