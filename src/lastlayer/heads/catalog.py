"""The heads by name: what the command line and ``lastlayer.attach`` choose from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from lastlayer._checks import options_refused
from lastlayer.heads.base import Head
from lastlayer.heads.class_priors import (
    BalancedSoftmax,
    ClassBalanced,
    LogitAdjusted,
    PCSoftmax,
)
from lastlayer.heads.class_sampling import ClassDropout, SampledSoftmax
from lastlayer.heads.dropmax import DropMax
from lastlayer.heads.ldam import LDAM
from lastlayer.heads.mixed_dropmax import MANY_CLASSES, MixedDropMax
from lastlayer.heads.retain import AuxiliarySoftmax, DeterministicAttention
from lastlayer.heads.softmax import Entmax, Softmax, Sparsemax
from lastlayer.registry import Registry

HeadFactory = Callable[..., Head]

#: Third parties add heads through the entry-point group ``lastlayer.heads``.
HEADS = Registry[HeadFactory](kind="head", group="lastlayer.heads")


@HEADS.register(
    "recommended",
    description="where to begin: dropmax-mixed below 50 classes, softmax from there on",
)
def recommended(in_features: int, num_classes: int, **kwargs: Any) -> Head:
    """Build the recommended head: MixedDropMax below 50 classes, Softmax from there on.

    With few classes the mixture had the error of label smoothing and a better likelihood than
    softmax; with 77 classes every form of DropMax was as good as softmax at best. The measurements
    are in ``docs/dropmax.md``.

    Args:
        in_features: number of features D.
        num_classes: number of classes K.
        **kwargs: further arguments of the head that is chosen.

    Returns:
        The head.

    Raises:
        ValueError: if an option does not fit.

    Example:
        >>> type(recommended(64, 10)).__name__, type(recommended(64, 100)).__name__
        ('MixedDropMax', 'Softmax')
    """
    if num_classes < MANY_CLASSES:
        return MixedDropMax(in_features, num_classes, **kwargs)
    return Softmax(in_features, num_classes, **kwargs)


_OTHERS: tuple[tuple[str, HeadFactory, str], ...] = (
    ("softmax", Softmax, "softmax cross-entropy, the baseline"),
    ("label-smoothing", partial(Softmax, label_smoothing=0.1), "softmax with label smoothing 0.1"),
    ("sparsemax", Sparsemax, "projection onto the simplex; exact zeros"),
    ("entmax15", partial(Entmax, alpha=1.5), "1.5-entmax, between the two"),
    ("sampled", SampledSoftmax, "sampled softmax, uniform proposal"),
    (
        "sampled-learned",
        partial(SampledSoftmax, proposal="learned"),
        "sampled softmax, proposal by label frequency",
    ),
    ("class-dropout", ClassDropout, "random classes dropped while training"),
    ("attention", DeterministicAttention, "deterministic attention on exponentials"),
    (
        "dropmax-prior",
        partial(DropMax, posterior="prior"),
        "DropMax with masks from the prior (q = p)",
    ),
    ("dropmax", DropMax, "DropMax, variational posterior (NeurIPS 2018)"),
    ("dropmax-iclr", DropMax.iclr, "adaptive DropMax of the ICLR 2018 form"),
    (
        "dropmax-exact",
        partial(DropMax, estimator="exact"),
        "DropMax trained on the exact expectation over masks",
    ),
    (
        "dropmax-mixed",
        MixedDropMax,
        "mixture of DropMax and softmax, its share falling with the number of classes",
    ),
    (
        "softmax-auxiliary",
        AuxiliarySoftmax,
        "softmax beside a sigmoid per class: DropMax's auxiliary loss alone",
    ),
    (
        "softmax-soft-auxiliary",
        AuxiliarySoftmax.soft,
        "the same, the sigmoids regressed to DropMax's fixed points",
    ),
    (
        "balanced-softmax",
        BalancedSoftmax,
        "for long tails: trained with log class counts, predicting without",
    ),
    (
        "logit-adjusted",
        LogitAdjusted,
        "for long tails: softmax, the class prior taken out afterwards",
    ),
    ("class-balanced", ClassBalanced, "for long tails: softmax weighted by effective class counts"),
    ("ldam", LDAM, "for long tails: cosines with larger margins for rare classes"),
    (
        "ldam-drw",
        partial(LDAM, reweight_after=0.8),
        "the same, class-balanced weights in the last fifth",
    ),
    ("pc-softmax", PCSoftmax, "balanced softmax whose loss is minus a bound on the information"),
)
for _name, _head, _description in _OTHERS:
    HEADS.add(_name, _head, description=_description)


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
