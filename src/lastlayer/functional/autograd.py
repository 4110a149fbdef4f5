"""The base of functions with their own backward pass, and a way through ``torch.func``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lastlayer._checks import in_torch_func

RowFunction = Callable[..., Tensor | tuple[Tensor, ...]]


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


def by_rows(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Return ``function(*rows)``, also under transforms of ``torch.func`` that it cannot bear.

    ``function`` maps tensors (N, ...) to one (N, ...), every row by itself, differentiable by
    autograd; it may look at its numbers. Rows of whole numbers have no gradient.
    """
    if not in_torch_func():
        if "torch._dynamo" in sys.modules:  # what depends on numbers throughout is not compiled
            function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return function(*rows)
    (values,) = _ByRows.apply(function, *rows)  # type: ignore[no-untyped-call]
    return values  # type: ignore[no-any-return]


class _ByRows(Function):
    """A function of rows as a whole: its derivatives are functions of rows again."""

    @staticmethod
    def forward(function: RowFunction, *rows: Tensor) -> tuple[Tensor, ...]:
        values = function(*rows)
        return values if isinstance(values, tuple) else (values,)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, *rows = inputs
        ctx.save_for_backward(*rows)
        ctx.save_for_forward(*rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows = ctx.saved_tensors
        pull = partial(_derivative, torch.autograd.functional.vjp, ctx.function, len(rows))
        pulled = iter(_ByRows.apply(pull, *rows, *grads))  # type: ignore[no-untyped-call]
        return None, *(next(pulled) if x.is_floating_point() else None for x in rows)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        rows = ctx.saved_tensors
        push = partial(_derivative, torch.autograd.functional.jvp, ctx.function, len(rows))
        moved = [
            torch.zeros_like(x) if tangent is None else tangent
            for x, tangent in zip(rows, tangents, strict=True)
            if x.is_floating_point()
        ]
        return _ByRows.apply(push, *rows, *moved)  # type: ignore[no-untyped-call, no-any-return]

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], function: RowFunction, *rows: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        size = info.batch_size
        batched = [
            x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(rows, in_dims[1:], strict=True)
        ]
        flat = [x.reshape(-1, *x.shape[2:]) for x in batched]
        values = _ByRows.apply(function, *flat)  # type: ignore[no-untyped-call]
        split = tuple(x.reshape(size, x.shape[0] // size, *x.shape[1:]) for x in values)
        return split, (0,) * len(split)


def _derivative(
    kind: Callable[..., Any], function: RowFunction, number: int, *arguments: Tensor
) -> tuple[Tensor, ...]:
    """Return a product of the Jacobian of ``function`` at rows with the vectors behind them."""
    rows, vectors = arguments[:number], arguments[number:]

    def of_floats(*floats: Tensor) -> Tensor | tuple[Tensor, ...]:
        given = iter(floats)
        return function(*(next(given) if x.is_floating_point() else x for x in rows))

    floats = tuple(x for x in rows if x.is_floating_point())
    vector = vectors if len(vectors) > 1 else vectors[0]
    _, product = kind(of_floats, floats, vector, create_graph=torch.is_grad_enabled())
    return product if isinstance(product, tuple) else (product,)
