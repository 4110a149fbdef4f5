"""What every part works with: the device, the clock, and rows that reach the disk one by one."""

from __future__ import annotations

import functools
import gc
import json
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lastlayer

#: What may come of a case besides ``"ok"`` and ``"note"``.
BAD = ("wrong", "error")
NOT_RUN = "not run"
PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = Path(lastlayer.__file__).resolve().parents[1]  # where it is installed elsewhere

Row = dict[str, Any]


class Bench:
    """One part: its cases are called one after another while there is time.

    Args:
        part: name of the part.
        device: ``"cuda"`` or ``"cpu"``.
        dry: whether sizes are tiny and what only a GPU can do is left out.
        seconds: the part's limit; what begins later is named as not run.
        path: JSON file, rewritten after every case.
        only: heads to look at; all if empty.
    """

    def __init__(
        self,
        part: str,
        device: str,
        *,
        dry: bool,
        seconds: float,
        path: Path,
        only: tuple[str, ...] = (),
    ) -> None:
        self.part, self.device, self.dry, self.path, self.only = part, device, dry, path, only
        self.started, self.seconds = time.monotonic(), seconds
        self.rows: list[Row] = []
        self.facts: dict[str, Any] = {}
        self._lost: str | None = None

    def left(self) -> float:
        """Return the seconds that the part still has."""
        return self.seconds - (time.monotonic() - self.started)

    def case(self, name: str, call: Callable[[], Row], *, needs: float = 0.0) -> Row:
        """Call a case and keep its row; what it raises becomes the row.

        Args:
            name: of the case.
            call: returns figures, and ``status`` unless that is ``"ok"``.
            needs: seconds below which the case is not begun.
        """
        begun = time.monotonic()
        if self._lost is not None:
            row: Row = {"status": NOT_RUN, "message": self._lost}
        elif self.left() <= needs:
            row = {"status": NOT_RUN, "message": "no time left"}
        else:
            row = self._called(name, call)
            row["seconds"] = round(time.monotonic() - begun, 3)
        row = {"case": name, "status": row.pop("status", "ok"), **row}
        self.rows.append(row)
        self.write()
        return row

    def note(self, name: str, message: str) -> None:
        """Keep a row that says why something is not there."""
        self.case(name, lambda: {"status": "note", "message": message})

    def wanted(self, names: list[str]) -> list[str]:
        """Return the heads to look at."""
        return [name for name in names if not self.only or name in self.only]

    def _called(self, name: str, call: Callable[[], Row]) -> Row:
        try:
            row = call()
            self.synchronize()
        except Exception as error:
            row = failure(error)
        try:
            self.synchronize()
        except Exception as error:
            self._lost = f"the device was lost in {name!r}: {str(error).splitlines()[0]}"
        if row.get("status") == "error":
            gc.collect()
            if self.device == "cuda" and self._lost is None:
                torch.cuda.empty_cache()
        return row

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def write(self) -> None:
        """Write what there is so far."""
        document = {
            "part": self.part,
            "command": ["python", *sys.argv],
            "dry": self.dry,
            "seconds": round(time.monotonic() - self.started, 1),
            **machine(self.device),
            "facts": self.facts,
            "rows": self.rows,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")


def failure(error: BaseException) -> Row:
    """Return the row of what was raised: its message, and where, innermost last."""
    first = error
    while first.__context__ is not None:  # a capture that breaks raises again at its end
        first = first.__context__
    message = f"{type(first).__name__}: {str(first).strip()}"
    return {"status": "error", "message": message[:600], "where": places(first)[-5:]}


def places(error: BaseException) -> list[str]:
    """Return ``file:line function`` of the frames in this project, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [place for frame in frames if (place := ours_at(frame.filename, frame.lineno))]
    return ours or [f"{frame.filename}:{frame.lineno}" for frame in frames[-3:]]


def ours_at(filename: str, line: int | None) -> str | None:
    """Return ``file:line`` of a file of this project, from its root on; None for others."""
    for root in (PROJECT, PACKAGE):
        if Path(filename).is_relative_to(root):
            return f"{Path(filename).relative_to(root)}:{line}"
    return None


@functools.cache
def machine(device: str) -> dict[str, Any]:
    """Return the versions and the device behind the figures."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return found | ({"commit": commit.stdout.strip()} if commit.returncode == 0 else {})
