"""Text from outside shows itself, and does nothing else."""

import unicodedata

import pytest

from tiltmeter.text import inert


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("good\rbad", r"good\rbad"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("\ufeff\u200bx", r"\ufeff\u200bx"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        ("line\n\ttab", "line\n\ttab"),
        ("naïve 日本 \U0001f468\u200d\U0001f469 <b>", "naïve 日本 \U0001f468\u200d\U0001f469 <b>"),
    ],
)
def test_control_characters_become_visible(hostile: str, shown: str) -> None:
    assert inert(hostile) == shown


def test_one_line_stays_one_line() -> None:
    assert inert("a\nb\tc", keep="") == r"a\nb\tc"


def test_every_control_character_is_caught() -> None:
    every = "".join(map(chr, range(0x2100)))
    left = {character for character in inert(every, keep="") if unicodedata.category(character)[0] == "C"}
    assert {ord(character) for character in left} <= {0x200C, 0x200D} | {
        code for code in range(0x2100) if unicodedata.category(chr(code)) == "Cn"
    }
