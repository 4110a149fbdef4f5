"""The heads by name: what the command line and ``lastlayer.attach`` choose from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from lastlayer._checks import options_refused
from lastlayer.heads.attention import DeterministicAttention
from lastlayer.heads.auxiliary import AuxiliarySoftmax
from lastlayer.heads.base import Head
from lastlayer.heads.class_dropout import ClassDropout
from lastlayer.heads.class_priors import (
    BalancedSoftmax,
    ClassBalanced,
    LogitAdjusted,
    PCSoftmax,
)
from lastlayer.heads.dropmax import DropMax
from lastlayer.heads.ldam import LDAM
from lastlayer.heads.mixed_dropmax import MixedDropMax
from lastlayer.heads.recommended import recommended
from lastlayer.heads.sampled_softmax import SampledSoftmax
from lastlayer.heads.softmax import Softmax
from lastlayer.heads.sparsemax import Entmax, Sparsemax
from lastlayer.registry import Registry

HeadFactory = Callable[..., Head]

#: Third parties add heads through the entry-point group ``lastlayer.heads``.
HEADS = Registry[HeadFactory](kind="head", group="lastlayer.heads")

HEADS.add(
    "recommended",
    recommended,
    description="where to begin: dropmax-mixed below 50 classes, softmax from there on",
)
HEADS.add("softmax", Softmax, description="softmax cross-entropy, the baseline")
HEADS.add(
    "label-smoothing",
    partial(Softmax, label_smoothing=0.1),
    description="softmax with label smoothing 0.1",
)
HEADS.add("sparsemax", Sparsemax, description="projection onto the simplex; exact zeros")
HEADS.add("entmax15", partial(Entmax, alpha=1.5), description="1.5-entmax, between the two")
HEADS.add("sampled", SampledSoftmax, description="sampled softmax, uniform proposal")
HEADS.add(
    "sampled-learned",
    partial(SampledSoftmax, proposal="learned"),
    description="sampled softmax, proposal by label frequency",
)
HEADS.add("class-dropout", ClassDropout, description="random classes dropped while training")
HEADS.add(
    "attention", DeterministicAttention, description="deterministic attention on exponentials"
)
HEADS.add(
    "dropmax-prior",
    partial(DropMax, posterior="prior"),
    description="DropMax with masks from the prior (q = p)",
)
HEADS.add("dropmax", DropMax, description="DropMax, variational posterior (NeurIPS 2018)")
HEADS.add("dropmax-iclr", DropMax.iclr, description="adaptive DropMax of the ICLR 2018 form")
HEADS.add(
    "dropmax-exact",
    partial(DropMax, estimator="exact"),
    description="DropMax trained on the exact expectation over masks",
)
HEADS.add(
    "dropmax-mixed",
    MixedDropMax,
    description="mixture of DropMax and softmax, its share falling with the number of classes",
)
HEADS.add(
    "softmax-auxiliary",
    AuxiliarySoftmax,
    description="softmax beside a sigmoid per class: DropMax's auxiliary loss alone",
)
HEADS.add(
    "softmax-soft-auxiliary",
    AuxiliarySoftmax.soft,
    description="the same, the sigmoids regressed to DropMax's fixed points",
)
HEADS.add(
    "balanced-softmax",
    BalancedSoftmax,
    description="for long tails: trained with log class counts, predicting without",
)
HEADS.add(
    "logit-adjusted",
    LogitAdjusted,
    description="for long tails: softmax, the class prior taken out afterwards",
)
HEADS.add(
    "class-balanced",
    ClassBalanced,
    description="for long tails: softmax weighted by effective class counts",
)
HEADS.add("ldam", LDAM, description="for long tails: cosines with larger margins for rare classes")
HEADS.add(
    "ldam-drw",
    partial(LDAM, reweight_after=0.8),
    description="the same, class-balanced weights in the last fifth",
)
HEADS.add(
    "pc-softmax",
    PCSoftmax,
    description="balanced softmax whose loss is minus a bound on the information",
)


def takes_class_counts(name: str) -> bool:
    """Return whether a head wants the training set's class counts as ``class_counts``.

    Args:
        name: a name of :data:`HEADS`.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> takes_class_counts("balanced-softmax"), takes_class_counts("softmax")
        (True, False)
    """
    return "class_counts" in inspect.signature(HEADS.get(name)).parameters


def build_head(name: str, in_features: int, num_classes: int, **options: Any) -> Head:
    """Build the head called ``name``.

    Args:
        name: a name of :data:`HEADS`.
        in_features: number of features D.
        num_classes: number of classes K.
        **options: further arguments of the head.

    Returns:
        The head.

    Raises:
        ValueError: if the name is unknown or an option does not fit.

    Example:
        >>> build_head("dropmax", 16, 10).num_classes
        10
    """
    factory = HEADS.get(name)
    if "class_counts" not in options and takes_class_counts(name):
        needed = inspect.signature(factory).parameters["class_counts"]
        if needed.default is inspect.Parameter.empty:
            raise ValueError(
                f"head {name!r} needs class_counts: how often each of the {num_classes} classes "
                "occurs in the training data, such as lastlayer.longtail.class_counts(labels)"
            )
    try:
        return factory(in_features, num_classes, **options)
    except TypeError as error:
        raise options_refused(f"head {name!r}", factory, options, error) from error
