"""Regularizers: feature map to feature map while training, the identity otherwise."""

from lastlayer.regularizers.base import Regularizer, total_penalty
from lastlayer.regularizers.blocks import Disout, DropBlock
from lastlayer.regularizers.catalog import REGULARIZERS, build_regularizer
from lastlayer.regularizers.concrete_dropout import ConcreteDropout
from lastlayer.regularizers.cutout import Cutout
from lastlayer.regularizers.dropout import Dropout, DropPath, GaussianDropout, SpatialDropout
from lastlayer.regularizers.insertion import Insertion, insert, inserted
from lastlayer.regularizers.standout import Standout
from lastlayer.regularizers.variational_dropout import VariationalDropout

__all__ = [
    "REGULARIZERS",
    "ConcreteDropout",
    "Cutout",
    "Disout",
    "DropBlock",
    "DropPath",
    "Dropout",
    "GaussianDropout",
    "Insertion",
    "Regularizer",
    "SpatialDropout",
    "Standout",
    "VariationalDropout",
    "build_regularizer",
    "insert",
    "inserted",
    "total_penalty",
]
