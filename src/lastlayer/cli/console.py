"""Where the command line prints, and its progress displays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from lastlayer.experiments.jobs import GridProgress
    from lastlayer.experiments.linear_progress import LinearProgress
    from lastlayer.report import TextTable
    from lastlayer.training.records import Progress as StepProgress

out_console = Console()
err_console = Console(stderr=True)

PLAIN_EVERY = 0.1  # without a terminal a line each tenth of the way
ANY_WIDTH = 10_000


def say(text: str) -> None:
    """Print one line as it is: no markup, no colors, no wrapping of long paths."""
    out_console.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(error: str) -> None:
    """Print an error on one line of the error stream."""
    err_console.print(
        f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
    )


def print_table(table: TextTable, *fewer: TextTable) -> None:
    """Print the first table that fits the terminal; if none does, the last one, wrapped.

    Args:
        table: what to print; without a terminal always this, as wide as it is.
        *fewer: the same with fewer columns.
    """
    for candidate in (table, *fewer):
        shown = candidate.to_rich()
        options = out_console.options.update(max_width=ANY_WIDTH)
        width = Measurement.get(out_console, options, shown).maximum
        if not out_console.is_terminal:
            Console(width=width).print(shown)
            return
        if width <= out_console.width:
            out_console.print(shown)
            return
    out_console.print(candidate.to_rich(compact=True))


class _Tenths:
    """Plain progress lines: the first of every tenth of the way."""

    def __init__(self) -> None:
        self._printed = -1

    def report(self, share: float, line: str) -> None:
        tenth = int(share / PLAIN_EVERY + 1e-9)
        if tenth > self._printed:
            self._printed = tenth
            err_console.print(line, highlight=False, soft_wrap=True)


def _display(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err_console,
    )


@contextmanager
def step_progress(total: int) -> Iterator[StepProgress]:
    """Show the steps of one run; without a terminal a plain line now and then."""
    lines = _Tenths()

    def plain(step: int, values: dict[str, float]) -> None:
        lines.report(step / total, f"step {step}/{total}  {_terms(values)}")

    if not err_console.is_terminal:
        yield plain
        return
    with _display("steps") as display:
        task = display.add_task("training", total=total)

        def bar(step: int, values: dict[str, float]) -> None:
            display.update(task, completed=step, description=_terms(values))

        yield bar


@contextmanager
def grid_progress() -> Iterator[GridProgress]:
    """Show the steps of all runs together; without a terminal a plain line now and then."""
    lines = _Tenths()

    def plain(done: int, total: int, runs_done: int, runs: int) -> None:
        share = done / max(total, 1) + PLAIN_EVERY * (runs_done == runs)
        lines.report(share, f"{runs_done}/{runs} runs, {done}/{total} steps")

    if not err_console.is_terminal:
        yield plain
        return
    with _display("steps") as display:
        task = display.add_task("starting", total=None)

        def bar(done: int, total: int, runs_done: int, runs: int) -> None:
            description = f"{runs_done} of {runs} runs"
            display.update(task, completed=done, total=total, description=description)

        yield bar


@contextmanager
def share_progress() -> Iterator[LinearProgress]:
    """Show how far solvers are, a bar each; without a terminal a plain line now and then."""
    lines: dict[str, _Tenths] = {}

    def plain(name: str, share: float, words: str) -> None:
        lines.setdefault(name, _Tenths()).report(share, f"{name}: {words}")

    if not err_console.is_terminal:
        yield plain
        return
    columns = (TextColumn("{task.fields[name]}"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=err_console) as display:
        tasks: dict[str, TaskID] = {}

        def bar(name: str, share: float, words: str) -> None:
            if name not in tasks:
                tasks[name] = display.add_task("", total=1.0, name=name)
            display.update(tasks[name], completed=share, description=words)

        yield bar


def _terms(values: dict[str, float]) -> str:
    shown = {name: value for name, value in values.items() if name != "lr"}
    return "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
