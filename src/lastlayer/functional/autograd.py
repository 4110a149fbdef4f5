"""The base of functions with their own backward pass."""

from __future__ import annotations

import inspect
from typing import Any

import torch


class Function(torch.autograd.Function):
    """A ``torch.autograd.Function`` whose call does not work out its own signature anew.

    Torch asks ``inspect.signature(forward)`` in every call of a function with ``setup_context``,
    which takes as long as a dozen small tensor operations. A signature that is already there is
    returned at once.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        forward: Any = cls.forward
        forward.__signature__ = inspect.signature(forward)
