"""Filter one digit out of collages of digits: what is removed of it, and of the others.

Run ``python studies/filtering.py``, or with ``--data mnist --data-dir D``. For every seed it trains
gap-cnn on single digits and erases from collages of test digits all windows with more pointwise
information about one digit than a threshold, for several thresholds; windows are read one by one,
and as windows of cells of the last map of the whole collage. A seed that has its file with the same
settings is not run again. It writes a table with intervals over the seeds and a picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seeds import (
    RESULTS,
    arguments_parser,
    over_seeds,
    parsed,
    per_cent,
    train_gap_cnn,
    training_digits,
    write_table,
)
from torch import Tensor

import lastlayer
from lastlayer.data.canvases import read_digits
from lastlayer.data.collages import Collages, digit_collages
from lastlayer.information import (
    cell_pmi,
    erase,
    posterior_threshold,
    removal_rates,
    window_pmi,
)
from lastlayer.report import filtering_figure, save_figure

POSTERIORS = (0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
PRIOR = 0.1
EMPTY = 0.5  # of the mean ink of a digit; windows with less are background
CELL = 2  # pixels of a cell of gap-cnn's last map
SHOWN = 3


def readings(
    model: lastlayer.Classifier, images: Tensor, digit: int, side: int
) -> dict[str, tuple[Tensor, int]]:
    """Pointwise information and stride of windows read one by one, and of windows of cells."""
    stride = max(1, side // 8)
    return {
        "windows": (window_pmi(model, images, digit, side, stride=stride), stride),
        "cells": (cell_pmi(model, images, digit, cells=side // CELL), CELL),
    }


def removal(
    model: lastlayer.Classifier, collages: Collages, digit: int, side: int, min_ink: float
) -> dict[str, Any]:
    """Removal rates of a digit and of the others at every threshold."""
    found: dict[str, Any] = {}
    for name, (pmi, stride) in readings(model, collages.images, digit, side).items():
        found[name] = {}
        for posterior in POSTERIORS:
            tau = posterior_threshold(posterior, PRIOR)
            out = erase(collages.images, pmi, side, tau, stride=stride, min_ink=min_ink)
            rates = removal_rates(
                collages.images, out.removed, collages.boxes, collages.labels, digit
            )
            found[name][str(posterior)] = rates._asdict()
    return found


def draw(
    model: lastlayer.Classifier, images: Tensor, digit: int, side: int, min_ink: float, path: Path
) -> None:
    """Draw collages before and after, and their windows' pointwise information."""
    pmi, stride = readings(model, images, digit, side)["windows"]
    tau = posterior_threshold(0.9, PRIOR)
    out = erase(images, pmi, side, tau, stride=stride, min_ink=min_ink)
    title = f"information about {digit}"
    save_figure(filtering_figure(images, out.images, pmi, side, stride=stride, title=title), path)


def table(seeds: list[dict[str, Any]], digit: int) -> str:
    """Return removal rates in per cent by threshold."""
    lines = [
        f"{len(seeds)} seeds; digit {digit} filtered out; share of ink removed in per cent, 95 % "
        "intervals over seeds; by windows read one by one, and by cells of the last map.",
        "",
        f"| posterior | tau (nats) | windows: digit {digit} | others | cells: digit {digit} "
        "| others |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for posterior in POSTERIORS:
        cells = []
        for reading in ("windows", "cells"):
            rates = [seed[reading][str(posterior)] for seed in seeds]
            cells += [per_cent([rate[key] for rate in rates]) for key in ("target", "others")]
        tau = posterior_threshold(posterior, PRIOR)
        lines.append(f"| {posterior:g} | {tau:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = arguments_parser(__doc__.splitlines()[0])
    parser.add_argument("--digit", type=int, default=0)
    parser.add_argument("--collages", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "filtering")
    arguments = parsed(parser)
    raw = read_digits(arguments.data, arguments.data_dir)
    side = raw.test.inputs.shape[-1]

    def run(seed: int) -> dict[str, Any]:
        digits, target = training_digits(raw, arguments.train_size, seed)
        model = train_gap_cnn(digits, target, arguments.epochs, seed)
        min_ink = EMPTY * float(digits.mean())
        collages = digit_collages(
            raw.test.inputs,
            raw.test.target,
            arguments.collages,
            chosen=arguments.digit,
            gap=side // 2,
            seed=seed,
        )
        if seed == 0:
            path = arguments.out / f"{arguments.data}-collages.png"
            draw(model, collages.images[:SHOWN], arguments.digit, side, min_ink, path)
        return removal(model, collages, arguments.digit, side, min_ink)

    names = ("epochs", "train_size", "digit", "collages")
    seeds = over_seeds(arguments.out, arguments, names, run)
    write_table(arguments.out, arguments, table(seeds, arguments.digit))


if __name__ == "__main__":
    main()
