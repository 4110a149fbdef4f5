"""Rows of text in columns, for what prints itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]], notes: Iterable[str] = (), *, left: int = 1) -> str:
    """Return rows of equally many cells in columns two blanks apart, and notes below.

    The first ``left`` columns are text, flush left; the others are numbers, flush right.

    >>> print(aligned([("layer", "H"), ("fc", "0.25")]))
    layer     H
    fc     0.25
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join((*lines, *notes))
