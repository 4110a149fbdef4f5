"""What a comparison of class-incremental methods leaves: table, record, figures and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lastlayer._checks import check_choice
from lastlayer.report.html import html_report
from lastlayer.report.incremental import IncrementalRow, incremental_table
from lastlayer.report.task_curves import accuracy_curve_figure, old_new_figure
from lastlayer.report.page import beside_published, without_nan, write_record
from lastlayer.report.style import save_figure, write_atomically
from lastlayer.report.text_table import TextTable
from lastlayer.report.task_maps import task_confusion_figure, task_matrix_figure


def write_incremental(
    out: Path,
    rows: Sequence[IncrementalRow],
    *,
    title: str,
    intro: str = "",
    baseline: str | None = None,
    detailed: Sequence[str] | None = None,
    published: TextTable | None = None,
    extra_figures: Mapping[str, Path] | None = None,
) -> Path:
    """Write ``comparison.md``, ``comparison.json``, ``figures/`` and ``report.html``.

    Args:
        out: folder of the comparison.
        rows: one ``IncrementalRow`` per method, all of the same tasks.
        title: heading of the page.
        intro: text under it.
        baseline: method that differences are taken to; the first row's if None.
        detailed: methods whose tasks are drawn one by one; the baseline and that of the highest
            average incremental accuracy, joint training left out, if None.
        published: table of published numbers beside ours.
        extra_figures: further figures, caption to file.

    Returns:
        The path of the page.

    Raises:
        ValueError: if ``rows`` is empty, a method comes twice, the tasks differ, or ``baseline`` or
            an entry of ``detailed`` is not among the methods.
    """
    table = incremental_table(rows, baseline)
    by_name = {row.method: row for row in rows}
    if detailed is None:
        able = [row for row in rows if row.method != "joint"] or rows
        best = max(able, key=lambda row: float(np.mean(row.average_incremental_accuracy)))
        detailed = [baseline or rows[0].method, best.method]
    for method in detailed:
        check_choice("detailed", method, by_name)
    figures = _side_by_side(out / "figures", rows)
    for number, method in enumerate(dict.fromkeys(detailed), start=1):
        figures |= _tasks_of(out / "figures", by_name[method], number)
    markdown = table.to_markdown()
    if published is not None:
        markdown += "\n" + published.to_markdown()
    write_atomically(out / "comparison.md", f"# {title}\n\n{intro}\n\n{markdown}".encode())
    entries = {"rows": [without_nan(asdict(row)) for row in rows]}
    write_record(out / "comparison.json", title, entries)
    return html_report(
        out / "report.html",
        title,
        intro=intro,
        table=table,
        figures=figures | dict(extra_figures or {}),
        sections={} if published is None else {"Published numbers": published.to_markdown()},
    )


def published_accuracies(
    rows: Sequence[IncrementalRow], published: Mapping[str, Mapping[str, float]], note: str = ""
) -> TextTable | None:
    """Return our average incremental accuracy beside the published ones; None if there are none.

    Args:
        rows: our results.
        published: accuracy in per cent by method and source.
        note: what to know about the published numbers.
    """
    ours = {row.method: 100 * float(np.mean(row.average_incremental_accuracy)) for row in rows}
    measure = "Average incremental accuracy"
    return beside_published(ours, published, note, names="Method", measure=measure)


def _side_by_side(folder: Path, rows: Sequence[IncrementalRow]) -> dict[str, Path]:
    figures = {
        "Accuracy on the classes seen, mean and 95 % interval over seeds": save_figure(
            accuracy_curve_figure(rows), folder / "accuracy.png"
        )
    }
    if len(rows[0].class_sizes) > 1:
        caption = "Old classes taken for new and new for old, after the last task"
        figures[caption] = save_figure(old_new_figure(rows), folder / "old-new.png")
    return figures


def _tasks_of(folder: Path, row: IncrementalRow, number: int) -> dict[str, Path]:
    tasks = [1] * len(row.class_sizes)
    return {
        f"{row.method}: accuracy on each task after each task, %, mean over seeds": save_figure(
            task_matrix_figure(row.mean_matrix()), folder / f"tasks-{number}.png"
        ),
        f"{row.method}: which task's classes examples are taken for in the end, % of each row, "
        "all seeds; framed: old taken for new": save_figure(
            task_confusion_figure(row.pooled_confusion(), tasks),
            folder / f"taken-for-{number}.png",
        ),
    }
