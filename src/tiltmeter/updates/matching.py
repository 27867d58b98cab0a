"""Regular expressions that somebody else wrote, matched with Python's `re` in a process that can be stopped.

PEFT matches module names with `re`, which never lets go of a hopeless pattern. Other engines finish on patterns
that hang `re` (`(.*.)*x$`), so a time limit in another engine proves nothing; the program below asks `re` itself.
This file imports the standard library only, since the other process runs it as a program.
"""

import json
import re
import subprocess
import sys

SECONDS = 10.0


class HopelessPatternError(ValueError):
    """A pattern that is invalid or does not finish; the message says which."""


def matches(patterns: list[str], names: list[str], full: bool = False) -> dict[str, list[str]]:
    """For each pattern the names that match it from their beginning (`full`: as a whole), as `re` does.

    Raises:
        HopelessPatternError: an invalid pattern, or one that takes longer than `SECONDS`.
    """
    if not patterns:
        return {}
    question = json.dumps([patterns, names, full])
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-S", __file__], input=question, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise HopelessPatternError(f"{patterns!r} did not finish matching in {SECONDS:g} s") from error
    if answer.returncode:
        raise HopelessPatternError(
            f"{patterns!r}: invalid regular expression: {answer.stderr.strip().splitlines()[-1]}"
        )
    found: dict[str, list[str]] = json.loads(answer.stdout)
    return found


def _match(patterns: list[str], names: list[str], full: bool) -> dict[str, list[str]]:
    compiled = {pattern: re.compile(pattern) for pattern in patterns}
    return {
        pattern: [name for name in names if (regex.fullmatch if full else regex.match)(name)]
        for pattern, regex in compiled.items()
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_match(*json.load(sys.stdin))))
