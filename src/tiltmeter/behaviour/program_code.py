"""Does a text contain program code? Fenced blocks, and what is built like Python, C and its kin, SQL or shell commands.

Evidence is counted over lines, family by family: one point is what prose can look like by chance, two are code. An
answer that is nothing but one statement needs one point only.
"""

import ast
import re
import warnings
from collections.abc import Iterator, Sequence

ENOUGH = 2
_LONGEST_LINE = 500
_MOST_LINES = 500
_LONGEST_BLOCK = 80
_MOST_ERRORS = 4  # prose after code, a bracket left open, the line before it that then lacks its body

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_NO_PROGRAM = frozenset(
    "text txt plain plaintext markdown md output json jsonc yaml yml toml ini csv tsv xml latex tex math".split()  # noqa: SIM905
)

_PYTHON_DEFINITION = re.compile(r"^\s*(async )?def \w+\(.*\).*:\s*(#.*)?$|^\s*class \w+(\([\w., =]*\)):\s*$")
_PYTHON_START = re.compile(
    r"^\s*(import|from|def|class|async|for|while|if|with|try|return|raise|@|[\w.\[\]]+ *[-+*/]?= |[\w.]+\()"
)
_TWO_POINTS = (
    r"#include\s*[<\"]\w",
    r"(export )?(default )?(async )?function\s*\w*\s*\(.*\)\s*\{",
    r"(pub )?fn \w+\s*[(<].*\{\s*$",
    r"func (\(.*\) )?\w+\(.*\{\s*$",
    r"(public|private|protected)\s+(static\s+)?[\w<>\[\]]+\s+\w+\s*\(.*\)\s*\{?\s*$",
    r"public\s+(final\s+|abstract\s+)?class\s+\w+",
    r"(int|void)\s+main\s*\(.*\)",
    r"<\?php\b",
    r"<!DOCTYPE html|<html[ >]|<script[ >]",
    r"#!\s*/\w+",
)
_ONE_POINT = (
    r"(const|let|var)\s+[\w{}\[\], ]+=\s*(.*;|.*[(\[{\"'`].*)\s*$",
    r"(const )?(int|char|float|double|bool|long|auto|size_t|String|std::\w+)\s*\*?\s*\w+(\[\w*\])?\s*(=.*)?;\s*$",
    r"[\w.$:>-]+\(.*\)\s*;\s*$",
    r"\}?\s*(else )?(if|for|while|switch|foreach)\s*\(.*\)\s*\{\s*$",
    r".*=>\s*\{\s*$",
    r"return\b.*;\s*$",
    r"using (namespace )?[\w.:]+;\s*$|import [\w.{}, *]+( from .*)?;\s*$|package [\w.]+;\s*$",
    r"[\w$]+(\.\w+|\[\w+\])*\s*[-+*/]?=\s*[^=].*;\s*$",
    r"\w+\+\+;\s*$",
)
_COLUMNS = r"(\*|[\w.]+(\([\w.*, ]*\))?( AS \w+)?(\s*,\s*[\w.]+(\([\w.*, ]*\))?( AS \w+)?)*)"
_SQL = re.compile(
    rf"^[ \t]*(SELECT\s+(DISTINCT\s+)?{_COLUMNS}\s+FROM\s+[\w.]+\s*"
    r"(;|$|WHERE\b|JOIN\b|LEFT\b|INNER\b|GROUP\b|ORDER\b|LIMIT\b)"
    r"|INSERT INTO\s+[\w.]+\s*(\(.*\))?\s*(VALUES|SELECT)\b|UPDATE\s+[\w.]+\s+SET\s+\w+\s*="
    r"|DELETE FROM\s+[\w.]+\s*(;|$|WHERE\b)|(CREATE|DROP|ALTER) TABLE\s+(IF (NOT )?EXISTS\s+)?[\w.]+\s*(\(|;|ADD\b))",
    re.MULTILINE,
)
_SQL_LINE = re.compile(_SQL.pattern + r".*;\s*$", re.IGNORECASE)  # in small letters it also is a sentence
_SHELL = re.compile(
    r"^\s*(\$ |# )?(sudo |pip3? install |npm (install|run|start)\b|apt(-get)? (install|update)\b"
    r"|git (clone|add|commit|push|pull|checkout|init)\b|cd [\w./~-]+$|mkdir |rm -\w+ |chmod [\d+-]|curl -|wget http"
    r"|export \w+=|echo [\"'$].*|cat [\w./-]+$|python3? [\w./-]+\.py|docker (run|build|pull)\b|source [\w./-]+$)"
)
_POINTS = ((re.compile("|".join(_TWO_POINTS)), 2), (re.compile("|".join(_ONE_POINT)), 1))


def contains_code(text: str) -> bool:
    """True where a text holds program code.

    A fenced block counts by its language, data and plain text (JSON, YAML, ...) apart; one without a language counts by
    its content. Code inside a sentence (`pip install x`), formulas and lists are none.
    """
    if any(_is_program(language, content) for language, content in _fenced(text)):
        return True
    return _is_built_like_code(_FENCE.sub("\n", text))


def _fenced(text: str) -> Iterator[tuple[str, str]]:
    for block in _FENCE.finditer(text):
        yield block[2].casefold(), block[3]


def _is_program(language: str, content: str) -> bool:
    if language in _NO_PROGRAM or not content.strip():
        return False
    return bool(language) or _is_built_like_code(content)


def _is_built_like_code(text: str) -> bool:
    lines = [line[:_LONGEST_LINE] for line in text.splitlines()[:_MOST_LINES] if line[:_LONGEST_LINE].strip()]
    if not lines:
        return False
    whole = _python_points(_parsed(lines[:_LONGEST_BLOCK])) if len(lines) <= _LONGEST_BLOCK else 0
    return whole > 0 or any(points >= ENOUGH for points in _evidence(lines))


def _evidence(lines: Sequence[str]) -> Iterator[int]:
    yield sum(_kin_of_c(line) for line in lines)
    yield sum(_SHELL.match(line) is not None and not line.rstrip().endswith((".", ":", "?")) for line in lines)
    yield ENOUGH * (_SQL.search("\n".join(lines)) is not None or any(map(_SQL_LINE.match, lines)))
    yield ENOUGH * any(map(_PYTHON_DEFINITION.match, lines))
    yield from (_python_points(block) for block in _python_blocks(lines))


def _kin_of_c(line: str) -> int:
    return next((points for pattern, points in _POINTS if pattern.match(line.strip())), 0)


def _python_blocks(lines: Sequence[str]) -> Iterator[ast.Module]:
    """The longest statements of Python that begin at each line that could begin one."""
    start = 0
    while start < len(lines):
        length = 1
        if _PYTHON_START.match(lines[start]):
            block = lines[start : start + _LONGEST_BLOCK]
            length, parses = _parsable(block)
            if parses:
                yield _parse(block[:length])
        start += max(length, 1)


def _parsable(lines: Sequence[str]) -> tuple[int, bool]:
    """How many of the first lines are Python together, if any are; each error ends the block before its line.

    After too many errors: up to where it was tried, and False.
    """
    count = len(lines)
    for _ in range(_MOST_ERRORS):
        error = _syntax_error(lines[:count])
        if error is None:
            return count, True
        count = min(error - 1, count - 1)
        if count == 0:
            break
    return count, False


def _syntax_error(lines: Sequence[str]) -> int | None:
    """The line of the first error, counted from 1; None where there is none."""
    try:
        _parse(lines)
    except SyntaxError as error:
        return max(error.lineno or 1, 1)
    except (ValueError, RecursionError, MemoryError):
        return 1
    return None


def _parsed(lines: Sequence[str]) -> ast.Module:
    return ast.Module([], []) if not lines or _syntax_error(lines) else _parse(lines)


def _parse(lines: Sequence[str]) -> ast.Module:
    margin = len(lines[0]) - len(lines[0].lstrip())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # strings with escapes that Python does not know
        return ast.parse("\n".join(line.removeprefix(lines[0][:margin]) for line in lines))


def _python_points(module: ast.Module) -> int:
    return sum(map(_statement_points, module.body))


def _statement_points(statement: ast.stmt) -> int:
    body = getattr(statement, "body", None)
    if isinstance(body, list) and body[0].lineno > statement.lineno:
        return 2
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return 1
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute):
        return 1
    value = getattr(statement, "value", None)
    return int(isinstance(statement, ast.Assign | ast.Expr | ast.Return) and _is_programs_call(value))


def _is_programs_call(value: ast.expr | None) -> bool:
    """A call that no formula makes: f(x) is one, f("x"), f(x=1), f() and a.f(x) are not."""
    if not isinstance(value, ast.Call):
        return False
    given = [*value.args, *(keyword.value for keyword in value.keywords)]
    has_text = any(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in given)
    return has_text or bool(value.keywords) or not given or isinstance(value.func, ast.Attribute)
