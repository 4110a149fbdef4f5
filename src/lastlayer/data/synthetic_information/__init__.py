"""Tasks whose mutual information is known: what an estimator is held against."""

from lastlayer.data.synthetic_information import source  # noqa: F401
from lastlayer.data.synthetic_information.bivariate_normal import BivariateNormal
from lastlayer.data.synthetic_information.channels import (
    FiniteJoint,
    erasure_channel,
    flip_labels,
    symmetric_channel,
)
from lastlayer.data.synthetic_information.gaussian_classes import (
    GaussianClasses,
    gaussian_mixture,
    scale_mixture,
    two_gaussians,
)
from lastlayer.data.synthetic_information.task import InformationTask, Sample
from lastlayer.data.synthetic_information.uniform_mixture import UniformMixture

__all__ = [
    "BivariateNormal",
    "FiniteJoint",
    "GaussianClasses",
    "InformationTask",
    "Sample",
    "UniformMixture",
    "erasure_channel",
    "flip_labels",
    "gaussian_mixture",
    "scale_mixture",
    "symmetric_channel",
    "two_gaussians",
]
