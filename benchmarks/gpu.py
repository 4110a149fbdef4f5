"""What lastlayer does on a GPU: is it right, does it wait, does it compile, how fast is it.

Run ``python benchmarks/gpu.py`` the moment a CUDA GPU is at hand; it takes less than eight minutes
of an H100. ``--dry`` goes through all of it on the CPU at tiny sizes in seconds. The parts:

- ``correct``: heads, losses, regularizers and what else takes a device, in every precision,
  against float64 on the CPU from the same random draws.
- ``sync``: every training step under ``torch.cuda.set_sync_debug_mode("error")``, and under
  deterministic algorithms.
- ``compile``: every head's step captured as a CUDA graph, and compiled with one.
- ``training``: runs on the bundled digits by the engine and by the command line.
- ``steps``: time and memory relative to ``Linear`` and ``cross_entropy``, and the share of what
  the GPU's matrix units and memory allow, as measured in the same run.

Each part is a process of its own, so that a device that is lost or a step that hangs costs one
part; ``steps`` has the machine to itself, the others run side by side. Every case is caught on its
own, and ``results/benchmarks/gpu-PART.json`` is rewritten after each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from gpu_parts.bench import BAD, NOT_RUN, Bench
from paired import RESULTS

#: Parts that run side by side, and the share of the time that each group has.
TOGETHER, ALONE = ("correct", "sync", "compile", "training"), ("steps",)
SHARE_TOGETHER = 0.5
#: Cases that are printed of every part that are not as they should be.
MOST_LINES = 30
MODULES = {"compile": "compiled"}


def main(words: list[str] | None = None) -> int:
    """Run the parts that are asked for; return 1 if something is wrong."""
    arguments = _parser().parse_args(words)
    if arguments.dry:
        _dry(arguments)
        return report(arguments)
    # What cuBLAS must know before its first call to be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("OMP_NUM_THREADS", "4")
    if not torch.cuda.is_available():
        print("no CUDA device is at hand; --dry tries everything on the CPU", file=sys.stderr)
        return 2
    if len(arguments.parts) == 1:
        _run(arguments.parts[0], "cuda", arguments, arguments.limit)
    else:
        _in_processes(arguments)
    return report(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=(*TOGETHER, *ALONE), help="default: all")
    parser.add_argument("--limit", type=float, default=450.0, help="seconds in all")
    parser.add_argument("--heads", default="", help="comma-separated; default: all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--dry", action="store_true", help="on the CPU, at tiny sizes")
    parser.set_defaults(parts=[*TOGETHER, *ALONE])
    return parser


def _dry(arguments: argparse.Namespace) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for part in arguments.parts:
            _run(part, "cpu", arguments, arguments.limit)
    finally:
        torch.set_num_threads(threads)


def path_of(arguments: argparse.Namespace, part: str) -> Path:
    """Return the file of a part's results."""
    kind = "gpu-dry" if arguments.dry else "gpu"
    path: Path = arguments.out / f"{kind}-{part}.json"
    return path


def _run(part: str, device: str, arguments: argparse.Namespace, seconds: float) -> None:
    """Run one part in this process."""
    bench = Bench(
        part,
        device,
        dry=arguments.dry,
        seconds=seconds,
        path=path_of(arguments, part),
        only=tuple(filter(None, arguments.heads.split(","))),
    )
    module = importlib.import_module(f"gpu_parts.{MODULES.get(part, part)}")
    module.run(bench)
    bench.write()


def _in_processes(arguments: argparse.Namespace) -> None:
    """Run every part in a process of its own, and end those that do not end by themselves."""
    end = time.monotonic() + arguments.limit
    for part in arguments.parts:
        path_of(arguments, part).unlink(missing_ok=True)
    together = [part for part in arguments.parts if part in TOGETHER]
    alone = [part for part in arguments.parts if part in ALONE]
    if together:
        seconds = arguments.limit * (SHARE_TOGETHER if alone else 1.0)
        _wait({part: _start(part, arguments, seconds) for part in together}, seconds)
    for part in alone:
        seconds = end - time.monotonic()
        _wait({part: _start(part, arguments, seconds)}, seconds)


def _start(part: str, arguments: argparse.Namespace, seconds: float) -> subprocess.Popen[bytes]:
    words = ["--parts", part, "--limit", f"{seconds - 10:.0f}", "--out", str(arguments.out)]
    words += ["--heads", arguments.heads]
    log = path_of(arguments, part).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen([sys.executable, __file__, *words], stdout=file, stderr=file)


def _wait(processes: dict[str, subprocess.Popen[bytes]], seconds: float) -> None:
    end = time.monotonic() + seconds
    for part, process in processes.items():
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"{part}: ended after {seconds:.0f} s; see its rows and its log")


def report(arguments: argparse.Namespace) -> int:
    """Print what came of every part, and the table of step times; return 1 if something is bad."""
    bad = 0
    for part in arguments.parts:
        path = path_of(arguments, part)
        if not path.is_file():
            print(f"\n{part}: no results; see {path.with_suffix('.log')}")
            bad += 1
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = document["rows"]
        count = Counter(row["status"] for row in rows)
        told = ", ".join(f"{number} {status}" for status, number in count.items())
        print(f"\n{part} ({document['device']}, {document['seconds']:.0f} s): {told}")
        found = [row for row in rows if row["status"] in BAD]
        bad += len(found)
        for row in found[:MOST_LINES]:
            print(f"  {row['status']}: {row['case']}: {_reason(row)}")
        if len(found) > MOST_LINES:
            print(f"  ... and {len(found) - MOST_LINES} more, in {path}")
        for row in rows:
            if row["status"] == "note":
                print(f"  note: {row['case']}: {row['message']}")
        left_out = [row["case"] for row in rows if row["status"] == NOT_RUN]
        if left_out:
            print(f"  not run: {', '.join(left_out[:8])}{' ...' if len(left_out) > 8 else ''}")
        if part == "steps":
            _print_steps(rows)
    return 1 if bad else 0


def _reason(row: dict[str, Any]) -> str:
    """Return why a row is bad, in one line."""
    if row.get("message"):
        place = f" [{row['where'][-1]}]" if row.get("where") else ""
        return f"{' '.join(row['message'].split())[:200]}{place}"
    if row.get("waits"):
        return ", ".join(row["waits"])
    shown = {k: v for k, v in row.items() if k not in ("case", "status", "seconds")}
    return ", ".join(
        f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )


def _print_steps(rows: list[dict[str, Any]]) -> None:
    """Print a line per head: relative time and peak memory in every case."""
    table: dict[str, dict[str, str]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        name, _, column = row["case"].partition(", K = ")
        if "milliseconds" not in row:
            continue
        columns[column] = None
        relative = f"{row['relative']:.2f}" if "relative" in row else "slow"
        memory = f" {row['peak_bytes'] / 2**20:.0f}M" if "peak_bytes" in row else ""
        table.setdefault(name, {})[column] = f"{relative} ({row['milliseconds']:.2f}){memory}"
    for half in (list(columns)[i : i + 4] for i in range(0, len(columns), 4)):
        print(f"\n  {'relative (ms) peak':24s}" + "".join(f"{c:>26s}" for c in half))
        for name, cells in table.items():
            if any(column in cells for column in half):
                print(f"  {name:24s}" + "".join(f"{cells.get(c, '-'):>26s}" for c in half))


if __name__ == "__main__":
    sys.exit(main())
