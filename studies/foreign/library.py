"""Every call of the library that is tried on foreign networks, in one place."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from foreign.networks import NUM_CLASSES, Inputs, Network
from lastlayer.heads import Classifier, attach, build_head
from lastlayer.information import ClassMaps, FeatureReport, feature_report
from lastlayer.regularizers import insert

#: What is inserted: dropped channels show which axis was taken for the channels'.
REGULARIZER = "spatial-dropout"
RATE = 0.5


def attached(network: Network, head: str = "softmax") -> tuple[Classifier, str]:
    """Attach a head as a user would: first alone, then with the layer's name.

    Returns:
        The classifier, and how it came about.
    """
    try:
        return attach(network.build(), head), "found"
    except ValueError:
        if network.layer is None:
            raise
    return attach(network.build(), head, layer=network.layer), f"layer={network.layer!r}"


def classifier(network: Network) -> nn.Module:
    """Return the network with a softmax head: attached, or put together where it has no layer."""
    if network.headless is None:
        return attached(network)[0]
    without_head, width = network.headless
    backbone = network.build()
    without_head(backbone)
    return Classifier(backbone, build_head("softmax", width, NUM_CLASSES)).eval()


def put_in(model: nn.Module, network: Network) -> Any:
    """Insert the regularizer at the network's blocks; the plan has ``places`` and ``remove``.

    As a user would: first alone, then with the axis of the channels if it asks for that.
    """
    put = partial(insert, model, REGULARIZER, where=network.where, p=RATE)
    try:
        return put()
    except ValueError as error:
        if not str(error).startswith("channel_dim"):
            raise
    return put(channel_dim=network.axes[1])


def maps_of(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Class activation maps, (N, T, h, w)."""
    return ClassMaps(model, method="cam")(images, target).maps


def report_of(model: nn.Module, inputs: Inputs, target: Tensor) -> FeatureReport:
    """The report on every layer of a network."""
    return feature_report(model, target, inputs=inputs.whole())


def report_of_features(features: dict[str, Tensor], target: Tensor) -> FeatureReport:
    """The report on features that were computed without the library."""
    return feature_report(features, target)
