"""Heads: modules that turn features into class probabilities and know their own loss."""

from lastlayer.heads.attach import Classifier, attach
from lastlayer.heads.base import Head
from lastlayer.heads.catalog import HEADS, build_head, recommended, takes_class_counts
from lastlayer.heads.class_priors import (
    BalancedSoftmax,
    ClassBalanced,
    LogitAdjusted,
    PCSoftmax,
    prior_correction,
)
from lastlayer.heads.class_sampling import ClassDropout, SampledSoftmax
from lastlayer.heads.dropmax import DropMax
from lastlayer.heads.growth import grow, set_class_counts
from lastlayer.heads.imprinting import imprint
from lastlayer.heads.interface import HeadOutput, NewClasses
from lastlayer.heads.ldam import LDAM
from lastlayer.heads.mixed_dropmax import MixedDropMax
from lastlayer.heads.retain import AuxiliarySoftmax, DeterministicAttention
from lastlayer.heads.softmax import Entmax, Softmax, Sparsemax

__all__ = [
    "HEADS",
    "LDAM",
    "AuxiliarySoftmax",
    "BalancedSoftmax",
    "ClassBalanced",
    "ClassDropout",
    "Classifier",
    "DeterministicAttention",
    "DropMax",
    "Entmax",
    "Head",
    "HeadOutput",
    "LogitAdjusted",
    "MixedDropMax",
    "NewClasses",
    "PCSoftmax",
    "SampledSoftmax",
    "Softmax",
    "Sparsemax",
    "attach",
    "build_head",
    "grow",
    "imprint",
    "prior_correction",
    "recommended",
    "set_class_counts",
    "takes_class_counts",
]
