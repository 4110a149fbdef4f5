r"""Noise on features: dropout and its relatives, as pure functions.

Features have the shape (N, C, \*); dtype and memory format are kept, half precision is computed in
float32. Noise is one number per unit: element, channel or example (``units``). One file each:
``dropout`` (and standout), ``cutout``, ``gaussian`` (fixed or learned variance, and what that
costs) and ``concrete`` (a learned rate and what it costs).
"""

from lastlayer.functional.feature_noise.concrete import concrete_dropout, concrete_dropout_kl
from lastlayer.functional.feature_noise.cutout import cutout, cutout_probability
from lastlayer.functional.feature_noise.dropout import (
    standout,
    standout_keep_probability,
    unit_dropout,
)
from lastlayer.functional.feature_noise.gaussian import (
    KL_APPROXIMATIONS,
    gaussian_dropout,
    log_uniform_kl,
    variational_dropout,
)
from lastlayer.functional.feature_noise.units import (
    check_num_channels,
    draw_noise,
    unit_shape,
)

__all__ = [
    "KL_APPROXIMATIONS",
    "check_num_channels",
    "concrete_dropout",
    "concrete_dropout_kl",
    "cutout",
    "cutout_probability",
    "draw_noise",
    "gaussian_dropout",
    "log_uniform_kl",
    "standout",
    "standout_keep_probability",
    "unit_dropout",
    "unit_shape",
    "variational_dropout",
]
