"""The report as one HTML file that needs nothing else: no network, no fonts, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from lastlayer.report.style import figure_bytes, write_atomically
from lastlayer.report.text_table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIME = {".png": "image/png", ".svg": "image/svg+xml"}


def html_report(
    path: str | Path,
    title: str,
    *,
    intro: str = "",
    tables: Mapping[str, TextTable] | None = None,
    figures: Mapping[str, Figure | Path] | None = None,
    sections: Mapping[str, str] | None = None,
) -> Path:
    """Write a self-contained report: introduction, tables, figures and sections by heading.

    Text is escaped; blank lines part paragraphs. Figures become images inside the file, drawn as
    SVG or taken from a non-empty PNG or SVG file. The same input gives the same bytes; the write is
    atomic.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = html_report(f"{folder}/report.html", "a < b").read_text(encoding="utf-8")
    >>> "<h1>a &lt; b</h1>" in text
    True
    """
    from jinja2 import Environment, StrictUndefined

    source = resources.files("lastlayer.report").joinpath("template.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    page = environment.from_string(source).render(
        title=title,
        intro=_paragraphs(intro),
        tables=list((tables or {}).items()),
        figures=[(caption, _data_uri(figure)) for caption, figure in (figures or {}).items()],
        sections=[(heading, _paragraphs(text)) for heading, text in (sections or {}).items()],
    )
    path = Path(path)
    write_atomically(path, page.encode("utf-8"))
    return path


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def _data_uri(figure: Figure | Path) -> str:
    # An image rather than inline markup: the ids inside several SVGs would collide in one page.
    if isinstance(figure, Path):
        suffix, content = figure.suffix.lower(), figure.read_bytes()
        if suffix not in MIME or not content:
            raise ValueError(f"figures must be non-empty PNG or SVG files; got {str(figure)!r}")
    else:
        suffix, content = ".svg", figure_bytes(figure, ".svg")
    return f"data:{MIME[suffix]};base64,{base64.b64encode(content).decode('ascii')}"
