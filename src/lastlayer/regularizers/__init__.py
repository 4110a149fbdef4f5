"""Regularisers: feature map to feature map while training, the identity otherwise."""

from lastlayer.regularizers.adaptive import AdaptiveRegularizer
from lastlayer.regularizers.base import Regularizer
from lastlayer.regularizers.catalog import REGULARIZERS, build_regularizer
from lastlayer.regularizers.concrete_dropout import ConcreteDropout
from lastlayer.regularizers.cutout import Cutout
from lastlayer.regularizers.drop_path import DropPath
from lastlayer.regularizers.dropout import Dropout
from lastlayer.regularizers.gaussian_dropout import GaussianDropout
from lastlayer.regularizers.penalty import total_penalty
from lastlayer.regularizers.spatial_dropout import SpatialDropout
from lastlayer.regularizers.standout import Standout
from lastlayer.regularizers.variational_dropout import VariationalDropout

__all__ = [
    "REGULARIZERS",
    "AdaptiveRegularizer",
    "ConcreteDropout",
    "Cutout",
    "DropPath",
    "Dropout",
    "GaussianDropout",
    "Regularizer",
    "SpatialDropout",
    "Standout",
    "VariationalDropout",
    "build_regularizer",
    "total_penalty",
]
