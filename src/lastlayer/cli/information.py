"""``lastlayer information`` and ``explain --boxes``: what a run knows, and where, as tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from lastlayer.cli.console import print_table, say

if TYPE_CHECKING:
    from torch import Tensor

    from lastlayer.experiments.information import RunInformation

#: Headings, rows and note.
Table = tuple[tuple[str, ...], tuple[tuple[str, ...], ...], str]

#: Of more classes than these only the least known are printed.
MOST_CLASSES = 20


def show_information(
    run: Path, *, data_dir: Path | None, num_samples: int, out: Path | None
) -> None:
    """Print estimates, classes and layers of a run; write all of it as JSON if asked."""
    from lastlayer.experiments.information import run_information
    from lastlayer.report import TextTable

    folder = None if data_dir is None else str(data_dir)
    found = run_information(run, data_dir=folder, num_masks=num_samples)
    for part in (_estimates, _classes, _layers, _quality, _modes):
        print_table(TextTable(*part(found)))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
        say(str(out))


def _estimates(found: RunInformation) -> Table:
    read = dict(found.estimates)
    if found.bracket is not None:
        count = found.bracket.num_samples
        read["one random mask"] = found.bracket.lower
        read[f"average of {count} masks"] = found.bracket.upper
    rows = []
    for name, estimate in read.items():
        low, high = estimate.interval()
        rows.append(
            (
                name,
                f"{estimate.value:.4f}",
                f"[{low:.4f}, {high:.4f}]",
                f"{estimate.bits:.4f}",
                f"{100 * estimate.value / found.label_entropy:.1f}" if found.label_entropy else "–",
            )
        )
    entropy = found.label_entropy
    note = (
        f"I(input; label) is at least these; there are H(Y) = {entropy:.4f} nats "
        f"({entropy / math.log(2):.4f} bits) to know. {found.measured_on.capitalize()} examples, "
        "95 % normal intervals."
    )
    return ("H(Y) - CE", "Nats", "Interval", "Bits", "% of H(Y)"), tuple(rows), note


def _classes(found: RunInformation) -> Table:
    named = list(zip(found.class_names, found.classes, strict=True))
    note = "Mean pointwise information of each class's examples, of at most -log P(class)."
    if len(named) > MOST_CLASSES:
        named.sort(key=lambda pair: math.inf if math.isnan(pair[1].mean) else pair[1].mean)
        note += f" The {MOST_CLASSES} least known of {len(named)} classes."
        named = named[:MOST_CLASSES]
    rows = tuple(
        (
            str(name),
            str(row.n),
            f"{row.mean:.4f}",
            f"{row.standard_error:.4f}",
            f"{row.ceiling:.4f}",
            f"{100 * row.misleading:.2f}",
        )
        for name, row in named
    )
    columns = ("Class", "Examples", "Nats", "Standard error", "At most", "Below the prior %")
    return columns, rows, note


def _layers(found: RunInformation) -> Table:
    rows = tuple(
        (
            name,
            str(score.num_features),
            f"{score.value:.3f}",
            f"{score.null:.3f}",
            f"{score.shrunk:.3f}",
            str(score.maximum),
        )
        for name, score in found.layers.scores.items()
    )
    note = (
        "H-score: how much of the label a linear read-out of the layer, averaged over space, "
        "explains; chance is what features that know nothing would score."
    )
    return ("Layer", "Features", "H-score", "Chance", "Shrunk", "At most"), rows, note


def _quality(found: RunInformation) -> Table:
    note = (
        "Scores of the features that the head is given; LEEP and NCE of its own probabilities. "
        "Chance is the mean over orders of the labels, ± its standard error."
    )
    notes = " ".join((note, *(f"{text.capitalize()}." for text in found.quality.notes)))
    return ("Score", "Value", "Chance", "±", "Above chance"), tuple(found.quality.rows()), notes


def _modes(found: RunInformation) -> Table:
    modes = found.modes
    note = (
        "What of the label is known best: the correlation of a function of the class, high for "
        "some classes and low for others, with the prediction, and with linear functions of the "
        "features (found on half of the examples, measured on the others). The first is the "
        f"maximal correlation. Squares sum to {modes.squares:.4f}, by chance to "
        f"{modes.squares_null:.4f}."
    )
    rows = tuple(modes.rows(found.class_names))
    return ("Mode", "Prediction", "Features", "High for", "Low for"), rows, note


def show_localization(
    run: Path, *, box_file: Path | None, window: int | None, threshold: float, data_dir: str | None
) -> Tensor | None:
    """Print how well boxes of maps meet the true ones, and return these; None if not known."""
    from lastlayer.experiments.localization import run_localization
    from lastlayer.information.localization import HEADINGS
    from lastlayer.report import TextTable
    from lastlayer.report.explain_maps import TITLES

    found = run_localization(
        run, box_file=box_file, window=window, threshold=threshold, data_dir=data_dir
    )
    if found is None:
        return None
    rows = tuple((TITLES[name], *each.row()) for name, each in found.methods.items())
    any_row = next(iter(found.methods.values()))
    note = (
        f"Boxes of the true classes' maps, {any_row.num_examples} test images. A hit has an "
        f"intersection over union of at least {any_row.iou_threshold:g}: GT-known counts the hits, "
        "Top-1 those of rightly classified images, MaxBoxAcc those at the best threshold, chosen "
        "on the same images."
    )
    print_table(TextTable(("Map", *HEADINGS), rows, note))
    return found.boxes
