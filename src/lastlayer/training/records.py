"""The records of training: means of a step's terms, held-out measures, and the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lastlayer.training.run_directory import RunDirectory

Progress = Callable[[int, dict[str, float]], None]


class Records:
    """Append records to a run's metrics.

    Args:
        run: where to.
        every: steps between two records of the terms.
        last: the last step, which has a record in any case.
        progress: called with the step and the newest record.
        offset: what is added to the steps in what is written: the steps of an earlier stage.
    """

    def __init__(
        self,
        run: RunDirectory,
        every: int,
        last: int,
        progress: Progress | None = None,
        *,
        offset: int = 0,
    ) -> None:
        self.run, self.every, self.last, self.progress = run, every, last, progress
        self.offset = offset
        self._sums: dict[str, float] = {}
        self._count = 0
        self._start = time.perf_counter()
        self._before = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._before + time.perf_counter() - self._start

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on with the same records."""
        return {"sums": self._sums, "count": self._count, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the means and the clock where the checkpoint left them."""
        self._sums, self._count = dict(state_dict["sums"]), state_dict["count"]
        self._before = state_dict["elapsed"]

    def due(self, step: int) -> bool:
        """Return whether a step ends with a record."""
        return step % self.every == 0 or step == self.last

    def add(
        self, step: int, values: Mapping[str, Tensor | float], *, lr: float, write: bool = True
    ) -> None:
        """Add the terms of a step, counted from 1; write the means when a record is due."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._count += 1
        if not self.due(step):
            return
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        if write:
            self.write("train", step, means | {"lr": lr})

    def write(self, split: str, step: int, values: dict[str, float]) -> None:
        """Write one record and tell the progress."""
        # JSON has no infinity; a sparse head's held-out NLL may be infinite.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        elapsed = round(self.elapsed, 3)
        at = self.offset + step
        self.run.append_metrics({"split": split, "step": at, **finite, "elapsed": elapsed})
        if self.progress is not None:
            self.progress(at, values)

    def write_rates(self, step: int, rates: Tensor) -> None:
        """Write the (K,) sampling rates of the classes after a step; 0 is before the first."""
        rounded = [round(rate, 6) for rate in rates.tolist()]
        self.run.append_metrics({"split": "rates", "step": self.offset + step, "rates": rounded})
