"""Regularisers: feature map to feature map while training, the identity otherwise."""

from lastlayer.regularizers.base import Regularizer
from lastlayer.regularizers.catalog import REGULARIZERS

__all__ = ["REGULARIZERS", "Regularizer"]
