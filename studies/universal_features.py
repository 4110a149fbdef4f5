"""Softmax regression and H-scores against the modes of dependence that theory says they learn.

Run ``python studies/universal_features.py`` for all experiments, or some of them with
``--experiments sigmoid-unit,weak``. Each writes a figure (learned beside theory) and its numbers;
the tables of all that were run are put together in ``README.md`` of the results.

- ``sigmoid-unit``: one-hot input, one sigmoid unit, softmax, on a random joint distribution.
- ``weak``: one free feature, softmax, on ever weaker dependence.
- ``strong``: the same on five random joints, where the optimum is not the first mode.
- ``frozen-layer``: a hidden layer before a softmax on frozen features, early in training.
- ``nested``: tables of features trained on samples by the nested H-score.
- ``normal``: networks trained on two normal variables, whose modes are Hermite polynomials.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from universal.common import Found
from universal.nested import nested, normal
from universal.softmax import frozen_layer, sigmoid_unit, strong, weak

from lastlayer.report.style import COLORS, MUTED, new_figure, save_figure, style

RESULTS = Path(__file__).resolve().parents[1] / "results" / "universal-features"

EXPERIMENTS: dict[str, Callable[[], Found]] = {
    "sigmoid-unit": sigmoid_unit,
    "weak": weak,
    "strong": strong,
    "frozen-layer": frozen_layer,
    "nested": nested,
    "normal": normal,
}


NOTES = {
    "strong": "Under strong dependence the best single feature is not the first mode. ",
    "frozen-layer": "Larger errors of W and c than expected: the sigmoids have left their linear "
    "regime. In that regime the law holds (tests/functional/dependence/test_weak_dependence.py). ",
    "nested": "With 30 000 samples modes 2 and 3, of close correlations, are those of the sample. ",
    "normal": "Modes come one after another: after 80 epochs the fifth has a cosine of .12. ",
}


def draw(found: Found, path: Path) -> None:
    """Draw the panels: learned as points joined by lines, theory as open grey circles."""
    panels = found["panels"]
    with style():
        figure = new_figure(3.1 * len(panels), 2.7)
        for axis, one in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            marker = "o" if len(one["x"]) < 20 else None
            for number, line in enumerate(one["theory"]):
                label = "theory" if number == 0 else None
                axis.plot(one["x"], line, color=MUTED, lw=3, alpha=0.5, label=label)
            for number, line in enumerate(one["learned"]):
                color = COLORS[number % len(COLORS)]
                label = "learned" if number == 0 else None
                style_of = {"marker": marker, "lw": 0 if "sigma" in one["x_label"] else 1}
                axis.plot(one["x"], line, ms=3.5, color=color, label=label, **style_of)
            axis.set(title=one["title"], xlabel=one["x_label"])
            axis.legend()
    save_figure(figure, path)


def table(found: Found) -> str:
    lines = ["| quantity | measured | expected |", "| --- | --- | --- |"]
    lines += [f"| {r['quantity']} | {r['measured']} | {r['expected']} |" for r in found["rows"]]
    return "\n".join(lines)


def gather() -> str:
    """The tables of every experiment that has results."""
    parts = ["# Universal features: learned beside theory"]
    parts.append(
        "Written by `python studies/universal_features.py`. Singular values and optima are "
        "expected exactly; the other expectations are ranges of an independent "
        "run with other starts, and in `weak` and `strong` other joints."
    )
    for name in EXPERIMENTS:
        path = RESULTS / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            parts += [f"## {name}", f"![learned and theory]({name}.svg)", table(found)]
            parts.append(f"{NOTES.get(name, '')}{found['seconds']:.0f} s on one core.")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", default=",".join(EXPERIMENTS))
    parser.add_argument("--normal-epochs", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in arguments.experiments.split(","):
        if name not in EXPERIMENTS:
            parser.error(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
        start = time.perf_counter()
        found = normal(arguments.normal_epochs) if name == "normal" else EXPERIMENTS[name]()
        found["seconds"] = round(time.perf_counter() - start, 1)
        found["torch"] = torch.__version__
        (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        draw(found, RESULTS / f"{name}.svg")
        print(f"{name} ({found['seconds']} s)\n{table(found)}\n", flush=True)
    (RESULTS / "README.md").write_text(gather())


if __name__ == "__main__":
    main()
