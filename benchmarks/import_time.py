"""Time ``import lastlayer`` against ``import torch, numpy``, each in fresh processes, in turn.

Run ``python benchmarks/import_time.py``. The figures are medians of seconds of processor time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from paired import write_results

ROUNDS = 9
CODE = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"


def seconds(modules: str) -> float:
    run = [sys.executable, "-c", CODE.format(modules)]
    return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    seconds("lastlayer")
    pairs = [(seconds("torch, numpy"), seconds("lastlayer")) for _ in range(ROUNDS)]
    torch_alone = statistics.median(first for first, _ in pairs)
    extra = statistics.median(second - first for first, second in pairs)
    print(
        f"import torch, numpy: {1e3 * torch_alone:.0f} ms; lastlayer on top: {1e3 * extra:.0f} ms"
    )
    results = {"torch_ms": 1e3 * torch_alone, "extra_ms": 1e3 * extra, "rounds": ROUNDS}
    write_results(Path("results/benchmarks/import_time.json"), results)


if __name__ == "__main__":
    main()
