"""The regularisers by name: what the command line and ``insert`` choose from."""

from __future__ import annotations

from collections.abc import Callable

from lastlayer.registry import Registry
from lastlayer.regularizers.base import Regularizer

#: Third parties add regularisers through the entry-point group ``lastlayer.regularizers``.
REGULARIZERS = Registry[Callable[..., Regularizer]](
    kind="regularizer", group="lastlayer.regularizers"
)
