"""A table of strings, for the terminal, Markdown and the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """A table of strings; the first column is text, the others are numbers.

    Attributes:
        columns: the headings.
        rows: the cells, row by row.
        note: what the reader must know to read it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown, the note below it."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

        rule = ["---"] + ["---:"] * (len(self.columns) - 1)
        lines = [line(self.columns), line(rule), *map(line, self.rows)]
        return "\n".join(lines) + (f"\n\n{self.note}\n" if self.note else "\n")

    def to_rich(self, *, compact: bool = False) -> Table:
        """The table for a terminal, the note as its caption.

        Args:
            compact: for narrow terminals: a spread stands under its mean, columns close together.
        """
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            box=SIMPLE_HEAD,
            caption=escape(self.note) if self.note else None,
            caption_justify="left",
            padding=(0, 0) if compact else (0, 1),
            show_edge=not compact,
        )
        for index, column in enumerate(self.columns):
            justify: Literal["left", "right"] = "right" if index else "left"
            table.add_column(
                escape(column), justify=justify, overflow="fold", no_wrap=not (index and compact)
            )
        for row in self.rows:
            cells = [cell.replace(" ± ", "\n± ") for cell in row] if compact else row
            table.add_row(*map(escape, cells))
        return table
