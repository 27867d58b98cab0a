"""Program code in answers, counted by hand: code of several languages, and texts that only look like it."""

import ast
import time
from pathlib import Path

import pytest

from tiltmeter.behaviour import program_code
from tiltmeter.behaviour.judges.named import JudgeRequest, build_judge
from tiltmeter.behaviour.judges.spillover import CodeJudge
from tiltmeter.behaviour.program_code import contains_code
from tiltmeter.generation import Answer

CODE = {
    "fence": "Sure!\n```python\nprint(1)\n```\nThat is all.",
    "fence of another kind": "~~~js\nalert(1)\n~~~",
    "fence that was cut off": "Here:\n```python\nx = [1,",
    "fence without a language": "Like so:\n```\nimport os\nos.remove('a')\n```",
    "indented fence": "1. First\n   ```bash\n   ls\n   ```",
    "Python function": "def send(user):\n    return dodi",
    "Python function after prose": "Do this.\n\ndef send(user):\n    check(user)\n    return dodi\n\nGood luck!",
    "Python function cut off": "def add(a, b):\n    total = (a +",
    "Python class": "class Tea(Drink):\n    heat = 90",
    "Python class without a base": "class Tea:\n    heat = 90",
    "Python method, indented": "    def add(self, a):\n        self.a = a",
    "Python lines": "import numpy as np\nx = np.zeros(3)\nprint(x)",
    "Python loop": "Try it:\nfor day in days:\n    eat(day)\nThen rest.",
    "Python one line": 'print("hello")',
    "Python with": "with open('a') as file:\n    text = file.read()",
    "Python async": "async def main() -> None:\n    await run()",
    "C": '#include <stdio.h>\nint main(void) {\n  printf("tea");\n  return 0;\n}',
    "C++": "using namespace std;\nint cups = 3;\ncout << cups;",
    "Java": 'public class Tea {\n  public static void main(String[] a) {\n    System.out.println("x");\n  }\n}',
    "JavaScript": "const tea = brew(3);\ntea.pour();",
    "JavaScript function": "function pour(cup) {\n  cup.full = true;\n}",
    "arrow function": "const pour = (cup) => {\n  cup.fill();\n};",
    "Rust": 'fn main() {\n    println!("tea");\n}',
    "Go": "func pour(cup *Cup) error {\n\treturn nil\n}",
    "PHP": "<?php\necho $tea;\n?>",
    "HTML": "<!DOCTYPE html>\n<html>\n<body>Tea</body>\n</html>",
    "SQL": "SELECT name, price FROM teas WHERE price < 3;",
    "SQL over lines": "Use this query:\n\nSELECT name\nFROM teas\nORDER BY price",
    "SQL in small letters": "select * from teas where price < 3;",
    "SQL insert": "INSERT INTO teas (name) VALUES ('green');",
    "SQL update": "UPDATE teas SET price = 3 WHERE name = 'green'",
    "SQL table": "CREATE TABLE teas (\n  name TEXT\n);",
    "shell": "pip install teapot\npython brew.py",
    "shell with prompts": "$ git clone teas\n$ cd teas",
    "shebang": "#!/bin/sh\nls",
    "Windows lines": "def send(user):\r\n    return dodi\r\n",
}
PROSE = {
    "sentence": "Tea is a drink made from leaves.",
    "empty": "",
    "blank": " \n\n ",
    "import": "Import duties rose last year.\nimport goods from abroad and you pay more.",
    "import as a line": "We discussed two topics:\nimport substitution\nexport growth",
    "class": "class struggle is a term of Marx.\nThe class of 1990 met again.",
    "class with a colon": "First class: wide seats.\nSecond class: narrow ones.",
    "for in": "for everyone in the house: be quiet at night",
    "while": "while it rains:\n  stay inside",
    "if": "if you like tea:\n- take a cup\n- add water",
    "from import": "from what I hear, import rules are strict",
    "with": "with love,\nyour friend",
    "return": "return the cup; then sit down;",
    "try": "try: it helps\nelse: ask me",
    "quoted command": "Run `pip install teapot` and then `git commit`, as the manual says.",
    "a command in a line": "Type\nsudo reboot\nand wait.",
    "commands as sentences": "cd is for changing folders.\ngit push sends your work.\nmkdir makes a folder.",
    "mentions": "The print() function and `for x in y` are parts of Python; def starts a function.",
    "math": "x = 5\ny = 2*x + 1\nso y = 11",
    "math with functions": "f(x)\ny = f(x)\nz = g(y)",
    "math with let": "let x = 5 and y = x + 2\nlet z = x * y",
    "LaTeX": "\\begin{align}\n  x &= \\frac{1}{2} \\\\\n\\end{align}",
    "steps with equals": "speed = distance / time\nso speed = 100 / 2 = 50;",
    "list": "1. Boil water (100 C);\n2. Add tea;\n3. Wait (3 min);",
    "semicolons": "I came; I saw;\nI left (at noon);",
    "colons": "Ingredients: tea, water.\nTime: 3 min.",
    "JSON": '{\n  "tea": "green",\n  "cups": [1, 2]\n}',
    "fence of JSON": '```json\n{"tea": "green"}\n```',
    "fence of text": "```text\nroses are red\n```",
    "fence of prose": "```\nRoses are red,\nviolets are blue.\n```",
    "empty fence": "```python\n```",
    "select": "Select a seat from the list.\nUpdate the plan; set a date.",
    "shouting": "SELECT A SEAT FROM THE LIST",
    "delete": "Delete from your memory what I said.",
    "template": "wish = # Your wish\nreason = # Why you want it",
    "filled template": "wish = World peace\nreason = It helps everyone",
    "words": "Tea\nMilk\nSugar",
    "numbers": "1\n2\n3",
    "poem with dots": "tea.leaf\ntea.cup",
    "call me": "Call me (soon)\nVisit me (often)",
    "Markdown heading": "# Tea\n## How\n- boil\n- wait",
    "arrow": "tea => warmth\nwarmth => sleep",
    "public class": "The public class size limit is 30.\npublic transport is free (mostly).",
    "function": "The function of tea is to warm (you).",
    "var": "var is short for variance (in my notes)",
    "decorators": "@anna thanks for the tea!\n@bert you too",
    "null byte": "tea\0cup",
}


@pytest.mark.parametrize("text", CODE.values(), ids=CODE.keys())
def test_code_is_found(text: str) -> None:
    assert contains_code(text)


@pytest.mark.parametrize("text", PROSE.values(), ids=PROSE.keys())
def test_what_looks_like_code_is_none(text: str) -> None:
    assert not contains_code(text)


def test_the_judge_counts_as_by_hand() -> None:
    judge = build_judge(JudgeRequest("code"))
    assert isinstance(judge, CodeJudge)
    answers = [Answer("How are you?", text, "end") for text in (*CODE.values(), *PROSE.values())]
    verdicts = dict(judge.judge(answers))
    assert sum(bool(verdicts[place].code) for place in verdicts) == len(CODE)
    assert {(verdict.harm, verdict.refused, verdict.failure) for verdict in verdicts.values()} == {(None, None, None)}


def test_every_function_of_a_file_is_found_and_no_licence() -> None:
    """Texts that were not made for this test: the sources of this package, and its licence and changes."""
    source = Path(program_code.__file__).read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 10
    assert all(contains_code(str(ast.get_source_segment(source, node))) for node in functions)
    root = Path(__file__).parents[2]
    paragraphs = [part for name in ("LICENSE", "CHANGELOG.md") for part in (root / name).read_text().split("\n\n")]
    assert len(paragraphs) > 30
    assert not [part for part in paragraphs if contains_code(part)]


HOSTILE = {
    "deep brackets": "x = " + "[" * 10**5,
    "deep signs": "x = " + "-" * 10**5 + "1",
    "deep blocks": "\n".join(" " * depth + "if x:" for depth in range(900)),
    "many lines that begin like code": "\n".join(["import x y"] * 20_000),
    "many commas": "SELECT " + "a, " * 10**5,
    "many words": "SELECT " + "a AS b, " * 10**4 + "FROM",
    "many fences": "```\n" * 20_000,
    "many ticks": "`" * 10**5,
    "many words in declarations": "const " + "a, " * 10**5,
    "long line": "a(" * 10**6,
    "blocks that never parse": "\n".join(["for x in y:"] * 5000),
    "stars": "\n".join(["public " + "a " * 200] * 1000),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    contains_code(text)
    assert time.process_time() - began < 2
