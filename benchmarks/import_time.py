"""Time ``import lastlayer`` where torch and NumPy are imported already, in fresh processes.

Run ``python benchmarks/import_time.py``. The figures are medians of seconds of processor time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from paired import RESULTS, write_results

ROUNDS = 9
CODE = """
from time import process_time
start = process_time()
import torch, numpy
middle = process_time()
import lastlayer
print(middle - start, process_time() - middle)
"""


def seconds() -> tuple[float, float]:
    run = [sys.executable, "-c", CODE]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    torch_alone, extra = map(float, output.split())
    return torch_alone, extra


def main() -> None:
    seconds()  # writes the byte code
    rounds = [seconds() for _ in range(ROUNDS)]
    torch_ms, extra_ms = (1e3 * statistics.median(part) for part in zip(*rounds, strict=True))
    print(f"import torch, numpy: {torch_ms:.0f} ms; lastlayer on top: {extra_ms:.0f} ms")
    results = {"torch_ms": torch_ms, "extra_ms": extra_ms, "rounds": ROUNDS}
    write_results(RESULTS / "import_time.json", results)


if __name__ == "__main__":
    main()
