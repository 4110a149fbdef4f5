"""The last layer of classifiers: heads, losses and tools between features and prediction.

``import lastlayer`` loads nothing but this file; a part is loaded when it is first used, the
engine, plots and the command line only by those who use them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lastlayer import (
        data,
        evaluation,
        experiments,
        functional,
        heads,
        incremental,
        information,
        linear_model,
        longtail,
        losses,
        models,
        regularizers,
        report,
        training,
    )
    from lastlayer.heads import Classifier, Head, HeadOutput, attach

__all__ = [
    "Classifier",
    "Head",
    "HeadOutput",
    "attach",
    "data",
    "evaluation",
    "experiments",
    "functional",
    "heads",
    "incremental",
    "information",
    "linear_model",
    "longtail",
    "losses",
    "models",
    "regularizers",
    "report",
    "training",
]
__version__ = "0.1.0"

_HEADS = ("Classifier", "Head", "HeadOutput", "attach")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lastlayer' has no attribute {name!r}")
    if name in _HEADS:
        return getattr(import_module("lastlayer.heads"), name)
    return import_module(f"lastlayer.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
