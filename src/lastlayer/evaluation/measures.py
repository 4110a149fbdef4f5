"""A measure of finished runs: declared once, for tables, figures, records and differences alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from lastlayer._checks import check_choice

#: A finished run's summary, as its run directory holds it.
Summary = Mapping[str, Any]

#: Tables a measure can be in: of classifiers, of groups of classes, of classes learned in tasks.
TABLES = ("heads", "groups", "tasks")


class Unit(NamedTuple):
    """What the numbers of a measure are, and how they are shown.

    Attributes:
        name: what is stored.
        factor: what it is multiplied by to be shown, 100 for per cent.
        decimals: how many are shown.
    """

    name: str
    factor: float
    decimals: int


SHARE = Unit("share", 100.0, 2)
NATS = Unit("nats", 1.0, 3)
SCORE = Unit("score", 1.0, 3)
SECONDS = Unit("seconds", 1.0, 1)


@dataclass(frozen=True)
class Measure:
    """A number of a finished run; tables, figures, records and differences follow from it.

    It is computed from the run's summary or from its predictions, one of both.

    Attributes:
        name: what it is called in rows and records.
        description: one line for ``lastlayer list measures``.
        unit: what is stored and how it is shown.
        direction: which is better, ``"lower"`` or ``"higher"``.
        column: the heading, in which ``{groups[0]}`` stands for the most frequent group of classes
            and ``{groups[2]}`` for the rarest; None for what only figures show.
        from_summary: takes the summary; None if the run was not measured by it.
        from_predictions: takes (N, K) log-probabilities and (N,) labels.
        tables: the tables it is in, of ``"heads"``, ``"groups"`` and ``"tasks"``.
        difference: its name in the heading of a column of paired differences; None for no such
            column, unless it is asked for.
        in_figure: whether a panel of the dot plot shows it.
        wide_only: which of its columns a narrow terminal leaves out: ``"column"``, its own, and
            ``"difference"``.
        explanation: what the reader of the table must know.
        null: what null means in a record: not defined, or infinite.

    Raises:
        ValueError: if the direction or a table is unknown, or it is computed from both or neither.

    Example:
        >>> import torch
        >>> accuracy = Measure(
        ...     "accuracy", "share of examples classified right", SHARE, "higher", "Accuracy %",
        ...     from_predictions=lambda log_prob, target: (log_prob.argmax(1) == target).sum() / 2,
        ... )
        >>> stored = {"log_prob": torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log()}
        >>> accuracy.of({}, lambda: stored | {"target": torch.tensor([0, 1])})
        0.5
    """

    name: str
    description: str
    unit: Unit
    direction: Literal["lower", "higher"]
    column: str | None
    from_summary: Callable[[Summary], float | None] | None = None
    from_predictions: Callable[[Tensor, Tensor], Tensor | float] | None = None
    tables: Collection[str] = ("heads",)
    difference: str | None = None
    in_figure: bool = False
    wide_only: Collection[str] = ()
    explanation: str = ""
    null: float = math.nan

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, ("lower", "higher"))
        for table in self.tables:
            check_choice("tables", table, TABLES)
        for column in self.wide_only:
            check_choice("wide_only", column, ("column", "difference"))
        if (self.from_summary is None) == (self.from_predictions is None):
            raise ValueError(
                f"measure {self.name!r} must be computed from_summary or from_predictions; got "
                + ("neither" if self.from_summary is None else "both")
            )

    def of(self, summary: Summary, predictions: Callable[[], Mapping[str, Tensor]]) -> float | None:
        """Return a finished run's value; None if the run was not measured by it, NaN if undefined.

        Args:
            summary: of the run.
            predictions: reads ``log_prob`` and ``target``; called only if they are needed.

        Raises:
            ValueError: if the summary lacks what the measure reads.
        """
        if self.from_predictions is not None:
            stored = predictions()
            return float(self.from_predictions(stored["log_prob"], stored["target"]))
        try:
            return None if self.from_summary is None else self.from_summary(summary)
        except KeyError as error:
            raise ValueError(f"the summary is corrupt: it has no entry {error}") from None

    def heading(self, shared: Mapping[str, Any], text: str | None = None) -> str:
        """Return the column's heading, or another text, with the names of groups put in."""
        return (text or self.column or self.name).format(**shared)
