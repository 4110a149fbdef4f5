"""The head to begin with."""

from __future__ import annotations

from typing import Any

from lastlayer.heads.base import Head
from lastlayer.heads.mixed_dropmax import MANY_CLASSES, MixedDropMax
from lastlayer.heads.softmax import Softmax


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
