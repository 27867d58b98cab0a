"""Run folders in, one self-contained HTML page out."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import count
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tiltmeter.errors import InputError
from tiltmeter.report.forecast_wording import leading, steps
from tiltmeter.report.verdict import rank
from tiltmeter.report.views import view
from tiltmeter.report.wording import figure, share, span, times
from tiltmeter.text import inert


def render(folders: Sequence[Path]) -> str:
    """The report on the runs in `folders`, in their order, as the text of one HTML page.

    A pure function of the folders: no time, no machine, no network. The page carries all it needs; its content
    security policy lets run only the scripts whose hashes it names, so text from data and models stays text.

    Raises:
        InputError: no folder, no finished run in one, or files in it that do not hold what they should.
    """
    if not folders:
        raise InputError("no run folder to report on")
    views = [view(folder, f"run-{number}") for number, folder in enumerate(folders, start=1)]
    scripts = [get_plotly(), _asset("report.js")]
    template = _environment().get_template("page.html")
    return template.render(
        views=views,
        style=Markup(_asset("style.css")),
        scripts=[Markup(script) for script in scripts],
        policy=policy(scripts),
        numbers=count(1).__next__,
    )


def policy(scripts: Sequence[str]) -> str:
    """The content security policy of a page with just these inline scripts."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def get_plotly() -> str:
    """Plotly's script as an HTML parser will hand it to the browser (and hash it)."""
    script: str = get_plotlyjs()
    return script.replace("\r\n", "\n").replace("\r", "\n")


def _asset(name: str) -> str:
    return files("tiltmeter.report").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tiltmeter.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "share": share, "span": span, "times": times, "rank": rank}
    environment.filters |= {"steps": steps, "leading": leading}
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return environment


def _visible(value: object) -> object:
    """Every text that a template prints loses its control characters; what the templates made is Markup already."""
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value
