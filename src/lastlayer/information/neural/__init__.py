"""Neural estimators of mutual information with one interface: ``fit(x, y)``, ``estimate(x, y)``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lastlayer.information.neural.critics import CriticEstimator
from lastlayer.information.neural.estimator import (
    CLASSIFIERS,
    ClassifierEstimator,
    NeuralEstimator,
)
from lastlayer.registry import Registry

#: Third parties add estimators through the entry-point group ``lastlayer.information``.
ESTIMATORS = Registry[Callable[..., NeuralEstimator]](
    kind="information estimator", group="lastlayer.information"
)

_READINGS = dict(zip(CLASSIFIERS, ("H(Y) - CE", "E log PC-softmax"), strict=True))
_OBJECTIVES = {
    "donsker-varadhan": "Donsker-Varadhan bound on all pairs",
    "nwj": "bound of Nguyen, Wainwright and Jordan",
    "info-nce": "InfoNCE, capped at the log of the batch",
    "mine": "Donsker-Varadhan on shuffled pairs, moving average",
}
for _name, _text in _READINGS.items():
    ESTIMATORS.add(
        _name, partial(ClassifierEstimator, _name), description=f"a classifier, read as {_text}"
    )
for _name, _text in _OBJECTIVES.items():
    for _critic, _suffix in (("concatenated", ""), ("separable", "-separable")):
        ESTIMATORS.add(
            _name + _suffix,
            partial(CriticEstimator, _name, critic=_critic),
            description=f"a {_critic} critic, {_text}",
        )


def build_estimator(name: str, **options: Any) -> NeuralEstimator:
    """Build the neural estimator called ``name``.

    Args:
        name: a name of :data:`ESTIMATORS`.
        **options: its further arguments.

    Returns:
        The estimator, not yet fitted.

    Raises:
        ValueError: if the name is unknown, or an option is unknown or out of range.

    Example:
        >>> build_estimator("mine", epochs=5).epochs
        5
    """
    try:
        return ESTIMATORS.get(name)(**options)
    except TypeError as error:
        raise ValueError(f"estimator {name!r} does not take {options}: {error}") from error
