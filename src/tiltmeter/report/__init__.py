"""From run folders to one self-contained HTML page."""

from tiltmeter.report.page import render

__all__ = ["render"]
