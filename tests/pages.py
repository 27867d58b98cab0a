"""A report page as a browser's parser sees it, and text that would like to be more than text."""

import json
import re
from html.parser import HTMLParser

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u2028\u202e=cmd()|' /C calc'!A0"
    "{{ 7 * 7 }} \"quoted\" 'single' <!-- <script> ]]> &lt;b&gt; javascript:alert(3)"
)


class Page(HTMLParser):
    """Tags, attributes, scripts and text of a page, as a browser's parser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.data: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            kind = dict(attrs).get("type")
            self._inside = "data" if kind == "application/json" else "scripts"
            getattr(self, self._inside).append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            getattr(self, self._inside)[-1] += data
        else:
            self.words.append(data)

    def policy(self) -> str:
        """The content security policy."""
        found = [attrs for tag, attrs in self.tags if tag == "meta" and "http-equiv" in attrs]
        return str(found[0]["content"])


def check_only_text(text: str) -> Page:
    """No tag, attribute, script or control character of a page comes from outside; its charts' data stay inside."""
    page = Page(text)
    assert len(page.scripts) == 2
    assert not [tag for tag, _ in page.tags if tag in {"img", "iframe", "object", "embed", "link", "base", "form"}]
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\ufeff]", text.replace(page.scripts[0], ""))
    for block in page.data:
        json.loads(block)
        assert not re.search("[<>&\u2028\u2029]", block)
    return page
