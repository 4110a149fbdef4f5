"""The tables of the runs: totals by part, cells by network, and what was said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from foreign.outcome import STATUSES
from lastlayer.report import TextTable

NOTE_LENGTH = 240
EXPLAINED = (
    "works: every check holds. refused: an error of the library's own. network cannot: the network "
    "alone fails in the same way. wrong: not what it should be, and nothing was said. crash: any "
    "other error, or too long. not asked: makes no sense for it."
)


def as_markdown(runs: dict[str, dict[str, Any]], parts: Sequence[str]) -> str:
    """Return all tables of one or two runs."""
    cells = {run: found["networks"] for run, found in runs.items()}
    names = list(dict.fromkeys(name for found in cells.values() for name in found))
    versions = "; ".join(
        f"{run}: " + ", ".join(f"{k} {v}" for k, v in found["versions"].items())
        for run, found in runs.items()
    )
    return "\n".join(
        (
            f"# Networks of other libraries: {', then '.join(runs)}\n",
            f"{len(names)} networks without trained weights. {versions}.\n",
            "## By part\n",
            _totals(cells, parts).to_markdown(),
            _in_detail(cells),
            "## By network\n",
            _by_network(cells, names, parts).to_markdown(),
            "## What was said\n",
            _said(cells, names, parts).to_markdown(),
        )
    )


def _totals(cells: dict[str, Any], parts: Sequence[str]) -> TextTable:
    def count(run: str, part: str) -> Counter[str]:
        return Counter(found[part]["status"] for found in cells[run].values() if part in found)

    counts = {part: [count(run, part) for run in cells] for part in parts}
    counts["all"] = [sum((counts[p][i] for p in parts), Counter()) for i in range(len(cells))]
    rows = tuple(
        (part, *(" → ".join(str(c[status]) for c in every) for status in STATUSES))
        for part, every in counts.items()
    )
    return TextTable(("part", *STATUSES), rows, EXPLAINED)


def _in_detail(cells: dict[str, Any]) -> str:
    """Tell how often a layer was found without its name, and compiled in one graph."""
    lines = []
    for part, found in (("attach", "found"), ("compile", "full graph")):
        counts = []
        for run in cells.values():
            notes = [
                c[part]["note"] for c in run.values() if c.get(part, {}).get("status") == "works"
            ]
            counts.append(f"{notes.count(found)} of {len(notes)}")
        lines.append(f"{part}, {found}: {' → '.join(counts)} that work")
    return "; ".join(lines) + ".\n"


def _by_network(cells: dict[str, Any], names: list[str], parts: Sequence[str]) -> TextTable:
    def cell(name: str, part: str) -> str:
        found = [run.get(name, {}).get(part, {}).get("status", "–") for run in cells.values()]
        return " → ".join(found if len(set(found)) > 1 else found[:1])

    rows = tuple((name, *(cell(name, part) for part in parts)) for name in names)
    return TextTable(("network", *parts), rows)


def _said(cells: dict[str, Any], names: list[str], parts: Sequence[str]) -> TextTable:
    """Notes of whatever does not work in one of the runs."""
    rows = []
    for part in parts:
        for name in names:
            found = [run.get(name, {}).get(part) for run in cells.values()]
            if all(one is None or one["status"] in ("works", "not asked") for one in found):
                continue
            notes = ("–" if one is None else _short(one) for one in found)
            rows.append((f"{part}, {name}", *notes))
    return TextTable(("part, network", *cells), tuple(rows))


def _short(cell: dict[str, Any]) -> str:
    note = cell["note"]
    if len(note) > NOTE_LENGTH:
        note = note[: NOTE_LENGTH - 1] + "…"
    return f"{cell['status']}: {note}" if note else cell["status"]
