"""What a comparison leaves beside its runs: table, figures and one page that holds them all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lastlayer.report.results_table import ComparisonRow, comparison_table
from lastlayer.report.curves import learning_curves
from lastlayer.report.reliability import reliability_figure
from lastlayer.report.dot_plot import comparison_figure
from lastlayer.report.html import html_report
from lastlayer.report.group_figures import (
    LongTailRow,
    class_accuracy_figure,
    long_tail_table,
    tail_confusion_figure,
)
from lastlayer.report.rates import rates_figure
from lastlayer.report.rows import (
    Runs,
    comparison_rows,
    learning_records,
    long_tail_rows,
    reliability_tables,
    sampling_rates,
)
from lastlayer.report.style import save_figure, write_atomically
from lastlayer.report.text_table import TextTable
from lastlayer.training.run_directory import describe_environment, without_infinities


def write_comparison(
    out: Path,
    runs: Runs,
    *,
    title: str,
    intro: str = "",
    published: TextTable | None = None,
    extra_figures: Mapping[str, Path] | None = None,
) -> list[ComparisonRow]:
    """Write ``comparison.md``, ``comparison.json``, ``figures/`` and ``report.html``.

    Args:
        out: folder of the comparison.
        runs: paths of the runs by head.
        title: heading of the page.
        intro: text under it.
        published: table of published numbers beside ours.
        extra_figures: further figures, caption to file.

    Returns:
        The table's rows.

    Raises:
        ValueError: if no run is finished.
    """
    rows = comparison_rows(runs)
    if not rows:
        raise ValueError(f"no finished run in {out}")
    table = comparison_table(rows)
    figures = {
        "Error, NLL and calibration: every seed, mean and 95 % interval": save_figure(
            comparison_figure(rows), out / "figures" / "comparison.png"
        ),
        "Reliability, all seeds pooled": save_figure(
            reliability_figure(reliability_tables(runs)), out / "figures" / "reliability.png"
        ),
    }
    curves = learning_records(runs)
    if curves:
        figures["Cross entropy while training"] = save_figure(
            learning_curves(curves), out / "figures" / "curves.png"
        )
    figures |= _rates_figures(out, runs)
    tails = long_tail_rows(runs)
    markdown = table.to_markdown()
    if tails:
        figures |= _long_tail_figures(tails, out / "figures")
        markdown += "\n" + long_tail_table(tails).to_markdown()
    if published is not None:
        markdown += "\n" + published.to_markdown()
    write_atomically(out / "comparison.md", f"# {title}\n\n{intro}\n\n{markdown}".encode())
    entries: dict[str, Any] = {"rows": [asdict(row) for row in rows]}
    if tails:
        entries["long_tail"] = [without_nan(asdict(row)) for row in tails]
    write_record(out / "comparison.json", title, entries, indent=1)
    html_report(
        out / "report.html",
        title,
        intro=intro,
        table=table,
        figures=figures | dict(extra_figures or {}),
        tables={"Groups of classes": long_tail_table(tails)} if tails else {},
        sections={} if published is None else {"Published numbers": published.to_markdown()},
    )
    return rows


def _long_tail_figures(rows: list[LongTailRow], folder: Path) -> dict[str, Path]:
    return {
        "Accuracy of each class against its training examples, mean over seeds": save_figure(
            class_accuracy_figure(rows), folder / "class-accuracy.png"
        ),
        "What the rarest classes are taken for, mean over seeds": save_figure(
            tail_confusion_figure(rows), folder / "tail-confusion.png"
        ),
    }


def _rates_figures(out: Path, runs: Runs) -> dict[str, Path]:
    """Draw the rates that samplers learned, of the first run of every head that has them."""
    figures = {}
    for paths in runs.values():
        found = next(((p, r) for p in paths if (r := sampling_rates(p)) is not None), None)
        if found is not None:
            path, learned = found
            figure = rates_figure(
                learned.steps, learned.rates, learned.class_counts, learned.class_names
            )
            file = out / "figures" / f"rates-{path.name}.png"
            figures[f"Sampling rates of {path.name}, one line a class"] = save_figure(figure, file)
    return figures


def published_table(
    rows: list[ComparisonRow], published: Mapping[str, Mapping[str, float]], note: str = ""
) -> TextTable | None:
    """Return our test error beside the published ones, in per cent; None if none were published.

    Args:
        rows: our results.
        published: error in per cent by head and source.
        note: what to know about the published numbers.
    """
    ours = {row.head: 100 * sum(row.error) / len(row.error) for row in rows}
    return beside_published(ours, published, note, names="Head", measure="Test error")


def beside_published(
    ours: Mapping[str, float],
    published: Mapping[str, Mapping[str, float]],
    note: str,
    *,
    names: str,
    measure: str,
) -> TextTable | None:
    """Return our numbers beside the published ones, in per cent; None if none were published.

    Args:
        ours: a number by head or method, options included.
        published: numbers by head or method, without options, and source.
        note: what to know about the published numbers.
        names: what the rows are.
        measure: what the numbers are.
    """
    sources = list(dict.fromkeys(source for by in published.values() for source in by))
    if not sources:
        return None
    cells = []
    for name, number in ours.items():
        by_source = published.get("+".join(w.partition(":")[0] for w in name.split("+")), {})
        numbers = [f"{by_source[s]:.2f}" if s in by_source else "–" for s in sources]
        cells.append((name, f"{number:.2f}", *numbers))
    text = f"{measure} in per cent; ours is the mean over seeds." + (f" {note}." if note else "")
    return TextTable((names, "Ours", *sources), tuple(cells), text)


def write_record(
    path: Path, title: str, entries: Mapping[str, Any], *, indent: int | None = None
) -> None:
    """Write a comparison's numbers as JSON, with the environment they come from.

    Args:
        path: the file.
        title: heading of the comparison.
        entries: the numbers by name; infinity becomes null.
        indent: spaces a level; None for one line, far smaller where there are matrices.

    Raises:
        ValueError: if an entry holds NaN.
    """
    record = {"title": title, "environment": describe_environment(), **entries}
    text = json.dumps(without_infinities(record), indent=indent, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def without_nan(value: Any) -> Any:
    """Return nested data with null for NaN: what has no example has no accuracy."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
