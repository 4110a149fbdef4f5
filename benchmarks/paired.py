"""Time several calls side by side: in turn within every round, medians over the rounds."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], object]

#: Where the figures go, from wherever a benchmark is called.
RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"


def seconds_of(call: Call, repeats: int) -> float:
    """Return the seconds of one of several calls by the clock on the wall."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def paired_medians(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    minimum_seconds: float = 0.0,
    timer: Callable[[Call, int], float] = seconds_of,
) -> dict[str, dict[str, float]]:
    """Return milliseconds, and the ratio to the first call within a round, both as medians.

    Args:
        calls: what to time; the first is what the others are held against.
        rounds: counted rounds, after one that is not.
        minimum_seconds: a short call is repeated within a round for about so long.
        timer: returns the seconds of one of so many calls.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, round(minimum_seconds / max(timer(call, 1), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(timer(call, repeats[name]))
    base = times[next(iter(calls))]
    return {
        name: {
            "milliseconds": 1e3 * statistics.median(values),
            "relative": statistics.median(v / b for v, b in zip(values, base, strict=True)),
        }
        for name, values in times.items()
    }


def print_table(title: str, results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Print one column per case and one row per call: ratio (milliseconds)."""
    rows = list(dict.fromkeys(name for case in results.values() for name in case))
    print(f"\n{title}")
    print(f"{'':32s}" + "".join(f"{case:>19s}" for case in results))
    for row in rows:
        cells = (case.get(row) for case in results.values())
        texts = (
            "-" if c is None else f"{c['relative']:.2f} ({c['milliseconds']:.2f})" for c in cells
        )
        print(f"{row:32s}" + "".join(f"{text:>19s}" for text in texts))


def write_results(path: Path, results: Mapping[str, Any], **about: object) -> None:
    """Write results with the command, versions and machine that made them."""
    document = {
        "command": ["python", *sys.argv],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **about,
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
