"""The base of functions with their own backward pass."""

from __future__ import annotations

import inspect

import torch

from lastlayer.functional.dropmax.objective import _Objective
from lastlayer.functional.entmax import _Entmax


def test_the_ready_signature_is_the_true_one() -> None:
    for function in (_Objective, _Entmax):
        ready = inspect.signature(function.forward)
        names = function.forward.__code__.co_varnames[: function.forward.__code__.co_argcount]
        assert tuple(ready.parameters) == names
        assert ready is function.forward.__signature__


def test_transforms_still_see_the_function() -> None:
    values = torch.tensor([[1.0, 0.5, -2.0]], dtype=torch.float64)

    def first(x: torch.Tensor) -> torch.Tensor:
        return _Entmax.apply(x, 1.5)[0, 0]

    gradient = torch.func.grad(first)(values)
    shift = torch.autograd.functional.jacobian(first, values)
    torch.testing.assert_close(gradient, shift)
