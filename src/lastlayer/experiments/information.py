"""What a finished run knows about the label, in nats, from the predictions that it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from lastlayer._inputs import to_weight
from lastlayer.evaluation import apply_temperature
from lastlayer.functional.information import label_entropy
from lastlayer.information import (
    FeatureReport,
    InformationEstimate,
    class_information,
    estimate_information,
    feature_quality,
    feature_report,
    label_modes,
    stochastic_information,
)
from lastlayer.information.class_information import ClassInformation
from lastlayer.information.feature_quality import FeatureQuality
from lastlayer.information.label_modes import LabelModes
from lastlayer.information.stochastic import StochasticInformation, predicts_with_masks
from lastlayer.training import RunDirectory
from lastlayer.training.fit import load_classifier, load_run_splits, predictions_on
from lastlayer.training.measuring import measured_part


class RunInformation(NamedTuple):
    """What there is to tell about a run.

    Attributes:
        measured_on: ``"test"`` or ``"validation"``: the examples of all estimates.
        estimates: by how the probabilities were read: as predicted; after temperature scaling.
        label_entropy: H(Y) in nats, what there is to know.
        bracket: between one random mask and all, for heads that predict with masks.
        classes: pointwise information of every class.
        class_names: their names.
        layers: H-scores of the backbone's layers.
        quality: scores of the features that the head is given.
        modes: the functions of the label that prediction and features know best.
    """

    measured_on: str
    estimates: dict[str, InformationEstimate]
    label_entropy: float
    bracket: StochasticInformation | None
    classes: list[ClassInformation]
    class_names: list[str]
    layers: FeatureReport
    quality: FeatureQuality
    modes: LabelModes

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, for JSON."""
        return {
            "measured_on": self.measured_on,
            "label_entropy": self.label_entropy,
            "estimates": {name: _plain(found) for name, found in self.estimates.items()},
            "bracket": None
            if self.bracket is None
            else {"lower": _plain(self.bracket.lower), "upper": _plain(self.bracket.upper)},
            "classes": [
                {"name": name, **row._asdict()}
                for name, row in zip(self.class_names, self.classes, strict=True)
            ],
            "layers": self.layers.as_dict(),
            "quality": self.quality.as_dict(),
            "modes": self.modes.as_dict(),
        }


def run_information(
    path: str | Path, *, data_dir: str | None = None, num_masks: int = 30
) -> RunInformation:
    """Estimate what a run's classifier knows, on the examples that it was measured on.

    ``data_dir`` is where the data's files are, if not the run's any more; ``num_masks`` are those
    per example for the bracket of a head that predicts with masks.
    """
    run = RunDirectory.open(path)
    summary = run.summary()
    classifier = load_classifier(run)
    measured = measured_part(run.config(), load_run_splits(run, data_dir=data_dir))
    predictions = predictions_on(run, measured)
    log_prob, target = predictions["log_prob"], predictions["target"]
    estimates = {"as predicted": estimate_information(log_prob, target)}
    if "temperature" in summary:
        scaled = apply_temperature(predictions["scores"], summary["temperature"])
        estimates["temperature-scaled"] = estimate_information(scaled, target)
    inputs = to_weight(measured.inputs, classifier.head.classifier.weight)
    features = classifier.features_of(inputs).flatten(1)
    bracket = None
    if predicts_with_masks(classifier.head):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            bracket = stochastic_information(
                classifier.head, features, target, num_samples=num_masks, generator=generator
            )
    return RunInformation(
        measured_on=summary["measured_on"],
        estimates=estimates,
        label_entropy=float(label_entropy(target, log_prob.shape[1])),
        bracket=bracket,
        classes=class_information(log_prob, target),
        class_names=summary["class_names"],
        layers=feature_report(classifier.backbone, target, inputs=inputs),
        quality=feature_quality(features, target, source_prob=log_prob.exp()),
        modes=label_modes(
            log_prob.argmax(1), target, features=features, num_classes=log_prob.shape[1]
        ),
    )


def _plain(estimate: InformationEstimate) -> dict[str, Any]:
    low, high = estimate.interval()
    return {
        "nats": estimate.value,
        "bits": estimate.bits,
        "standard_error": estimate.standard_error,
        "interval": [low, high],
        "n": estimate.n,
    }
