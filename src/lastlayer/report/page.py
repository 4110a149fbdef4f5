"""What a comparison leaves beside its runs: table, record, figures and one page of them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from lastlayer._checks import check_choice
from lastlayer.evaluation import MEASURES
from lastlayer.report.curves import learning_curves, rates_figure, reliability_figure
from lastlayer.report.dot_plot import comparison_figure
from lastlayer.report.group_figures import class_accuracy_figure, tail_confusion_figure
from lastlayer.report.html import html_report
from lastlayer.report.kinds import KINDS
from lastlayer.report.results_table import published_table, wide_and_narrow
from lastlayer.report.rows import Row, write_record
from lastlayer.report.run_files import (
    Runs,
    collect_rows,
    learning_records,
    reliability_tables,
    sampling_rates,
)
from lastlayer.report.style import save_figure, write_atomically
from lastlayer.report.task_curves import (
    accuracy_curve_figure,
    old_new_figure,
    taken_for_figure,
    tasks_figure,
)
from lastlayer.report.text_table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Name of the file, caption, and figure.
Drawn: TypeAlias = "tuple[str, str, Figure]"


class Report(NamedTuple):
    """The files that were written, and every table, with one for narrow terminals if any."""

    page: Path
    markdown: Path
    tables: list[tuple[TextTable, ...]]


def write_comparison(
    out: Path,
    runs: Runs,
    *,
    title: str,
    intro: str = "",
    baseline: str | None = None,
    published: Mapping[str, Mapping[str, float]] | None = None,
    published_note: str = "",
    detailed: Sequence[str] | None = None,
    extra_figures: Mapping[str, Path] | None = None,
) -> Report:
    """Write ``comparison.md``, ``comparison.json``, ``figures/`` and ``report.html``.

    Args:
        out: folder of the comparison.
        runs: paths of the runs by variant.
        title: heading of the page.
        intro: text under it.
        baseline: variant that differences are taken to; the first if None.
        published: published numbers in per cent by variant and source.
        published_note: what to know about them.
        detailed: methods whose tasks are drawn one by one; the baseline and that of the highest
            average incremental accuracy, joint training left out, if None.
        extra_figures: further figures, caption to file.

    Returns:
        The files and the tables.

    Raises:
        ValueError: if no run is finished, tasks differ, or ``baseline`` or an entry of ``detailed``
            is not among the variants.
    """
    rows = {table: found for table, found in collect_rows(runs).items() if found}
    if not rows:
        raise ValueError(f"no finished run in {out}")
    tables = {table: wide_and_narrow(found, baseline) for table, found in rows.items()}
    drawn: list[Iterator[Drawn]] = []
    if "heads" in rows:
        drawn.append(_of_heads(rows["heads"], runs))
    if "groups" in rows:
        drawn.append(_of_groups(rows["groups"]))
    if "tasks" in rows:
        drawn.append(_of_tasks(rows["tasks"], baseline, detailed))
    figures = {
        caption: save_figure(figure, out / "figures" / f"{name}.png")
        for name, caption, figure in chain(*drawn)
    }
    beside = published_table(next(iter(rows.values())), published or {}, published_note)
    shown = [wide for wide, *_ in tables.values()] + ([] if beside is None else [beside])
    markdown = "\n".join(table.to_markdown() for table in shown)
    write_atomically(out / "comparison.md", f"# {title}\n\n{intro}\n\n{markdown}".encode())
    write_record(out / "comparison.json", title, rows)
    page = html_report(
        out / "report.html",
        title,
        intro=intro,
        tables={KINDS[table].heading: wide for table, (wide, *_) in tables.items()},
        figures=figures | dict(extra_figures or {}),
        sections={} if beside is None else {"Published numbers": beside.to_markdown()},
    )
    printed = [*tables.values(), *([] if beside is None else [(beside,)])]
    return Report(page, out / "comparison.md", printed)


def _of_heads(rows: Sequence[Row], runs: Runs) -> Iterator[Drawn]:
    caption = "Error, NLL and calibration: every seed, mean and 95 % interval"
    yield "comparison", caption, comparison_figure(rows)
    caption = "Reliability, all seeds pooled"
    yield "reliability", caption, reliability_figure(reliability_tables(runs))
    curves = learning_records(runs)
    if curves:
        yield "curves", "Cross entropy while training", learning_curves(curves)
    for paths in runs.values():  # the first run of every head whose sampler learned
        found = next(((p, r) for p in paths if (r := sampling_rates(p)) is not None), None)
        if found is not None:
            path, learned = found
            caption = f"Sampling rates of {path.name}, one line a class"
            yield f"rates-{path.name}", caption, rates_figure(*learned)


def _of_groups(rows: Sequence[Row]) -> Iterator[Drawn]:
    caption = "Accuracy of each class against its training examples, mean over seeds"
    yield "class-accuracy", caption, class_accuracy_figure(rows)
    caption = "What the rarest classes are taken for, mean over seeds"
    yield "tail-confusion", caption, tail_confusion_figure(rows)


def _of_tasks(
    rows: Sequence[Row], baseline: str | None, detailed: Sequence[str] | None
) -> Iterator[Drawn]:
    caption = "Accuracy on the classes seen, mean and 95 % interval over seeds"
    yield "accuracy", caption, accuracy_curve_figure(rows)
    if len(rows[0].shared["class_sizes"]) > 1:
        caption = "Old classes taken for new and new for old, after the last task"
        yield "old-new", caption, old_new_figure(rows)
    by_name = {row.name: row for row in rows}
    if detailed is None:
        # The second is best by what papers give, joint training left out.
        measure = MEASURES.get("average_incremental_accuracy")
        sign = 1 if measure.direction == "higher" else -1
        able = [row for row in rows if row.name != "joint"] or rows
        best = max(able, key=lambda row: sign * float(np.mean(row.values[measure.name])))
        detailed = [baseline or rows[0].name, best.name]
    for name in detailed:
        check_choice("detailed", name, by_name)
    for number, name in enumerate(dict.fromkeys(detailed), start=1):
        caption = f"{name}: accuracy on each task after each task, %, mean over seeds"
        yield f"tasks-{number}", caption, tasks_figure(by_name[name])
        caption = (
            f"{name}: which task's classes examples are taken for in the end, % of each row, all "
            "seeds; framed: old taken for new"
        )
        yield f"taken-for-{number}", caption, taken_for_figure(by_name[name])
