"""The last layer of classifiers: heads, losses and tools between features and prediction.

``import lastlayer`` loads nothing but this file; a part is loaded when it is first used, the
engine, plots and the command line only by those who use them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lastlayer import (
        functional,
        heads,
        incremental,
        information,
        linear_model,
        longtail,
        losses,
        regularizers,
    )
    from lastlayer.heads import Classifier, Head, HeadOutput, attach

__all__ = [
    "Classifier",
    "Head",
    "HeadOutput",
    "attach",
    "functional",
    "heads",
    "incremental",
    "information",
    "linear_model",
    "longtail",
    "losses",
    "regularizers",
]
__version__ = "0.1.0"

_ROOMS = (
    "functional",
    "heads",
    "incremental",
    "information",
    "linear_model",
    "longtail",
    "losses",
    "regularizers",
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lastlayer' has no attribute {name!r}")
    room = name if name in _ROOMS else "heads"
    module = import_module(f"lastlayer.{room}")
    return module if name in _ROOMS else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
