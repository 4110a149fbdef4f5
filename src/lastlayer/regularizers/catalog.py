"""The regularizers by name: what the command line and ``insert`` choose from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lastlayer._checks import options_refused
from lastlayer.registry import Registry
from lastlayer.regularizers.base import Regularizer
from lastlayer.regularizers.blocks import Disout, DropBlock
from lastlayer.regularizers.concrete_dropout import ConcreteDropout
from lastlayer.regularizers.cutout import Cutout
from lastlayer.regularizers.drop_path import DropPath
from lastlayer.regularizers.dropout import Dropout
from lastlayer.regularizers.gaussian_dropout import GaussianDropout
from lastlayer.regularizers.spatial_dropout import SpatialDropout
from lastlayer.regularizers.standout import Standout
from lastlayer.regularizers.variational_dropout import VariationalDropout

RegularizerFactory = Callable[..., Regularizer]

#: Third parties add regularizers through the entry-point group ``lastlayer.regularizers``.
REGULARIZERS = Registry[RegularizerFactory](kind="regularizer", group="lastlayer.regularizers")

REGULARIZERS.add("dropout", Dropout, description="random elements set to 0")
REGULARIZERS.add("spatial-dropout", SpatialDropout, description="random channels set to 0")
REGULARIZERS.add(
    "drop-path", DropPath, description="random examples set to 0: stochastic depth of a branch"
)
REGULARIZERS.add("drop-block", DropBlock, description="random blocks of a map set to 0")
REGULARIZERS.add(
    "disout", Disout, description="random blocks of a map distorted (Disout, AAAI 2020)"
)
REGULARIZERS.add("cutout", Cutout, description="random squares of the input erased")
REGULARIZERS.add(
    "gaussian-dropout", GaussianDropout, description="multiplicative Gaussian noise of fixed rate"
)
REGULARIZERS.add(
    "variational-dropout",
    VariationalDropout,
    description="multiplicative Gaussian noise, its variance learned per channel",
)
REGULARIZERS.add(
    "concrete-dropout",
    ConcreteDropout,
    description="relaxed dropout of channels, one rate learned",
)
REGULARIZERS.add(
    "standout",
    Standout,
    description="units of low pre-activation dropped more often; before the nonlinearity",
)


def build_regularizer(name: str, **options: Any) -> Regularizer:
    """Build the regularizer called ``name``.

    Args:
        name: a name of :data:`REGULARIZERS`.
        **options: arguments of the regularizer.

    Returns:
        The regularizer.

    Raises:
        ValueError: if the name is unknown, or an option is missing or does not fit.

    Example:
        >>> build_regularizer("spatial-dropout", p=0.2)
        SpatialDropout(p=0.2)
    """
    factory = REGULARIZERS.get(name)
    missing = [
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in options
    ]
    if missing:
        raise ValueError(f"regularizer {name!r} needs {' and '.join(missing)}")
    try:
        return factory(**options)
    except TypeError as error:
        raise options_refused(f"regularizer {name!r}", factory, options, error) from error
