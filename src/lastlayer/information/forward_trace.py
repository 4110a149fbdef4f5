"""One forward pass, traced for the last feature map and the last linear layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Maps(NamedTuple):
    """The last maps seen: one of several cells, and one of a single cell that is no pooled one."""

    several: Tensor | None = None
    single: Tensor | None = None

    def candidates(self) -> list[Tensor]:
        """Return what there is, of several cells first."""
        return [features for features in self if features is not None]


class LinearCall(NamedTuple):
    """A call of a linear layer or a 1x1 convolution, with the last maps before it."""

    operand: Tensor
    weight: Tensor
    bias: Tensor | None
    maps: Maps


class ForwardTrace(TorchFunctionMode):
    """Remembers the last feature map that any function was given, and the last linear layer.

    Functions are watched rather than modules: a ReLU or a mean over cells that is a line of code in
    somebody's ``forward`` shows its operand like any module does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps = Maps()
        self.linear: LinearCall | None = None
        self.pinned = False
        self._pooled = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` and remember what it was given."""
        kwargs = kwargs or {}
        operand = args[0] if args else kwargs.get("input")
        if isinstance(operand, Tensor) and _cells(operand) and not self.pinned:
            if _cells(operand) > 1:
                self.maps, self._pooled = Maps(several=operand), False
            elif not self._pooled:
                # A convolution as large as its input left one cell; pooling would leave a mean,
                # whose map has been seen, or a maximum, which no class map explains.
                self.maps = Maps(self.maps.several, operand)
        out = func(*args, **kwargs)
        if _cells(operand) > 1 and _cells(out) == 1 and func is not F.conv2d:
            self._pooled = True
        if func is F.linear:
            self.linear = LinearCall(*_linear_operands(*args, **kwargs), self.maps)
        elif func is F.conv2d:
            operands = _convolution_operands(*args, **kwargs)
            if operands is not None:
                self.linear = LinearCall(*operands, self.maps)
        return out

    def pin(self, features: Tensor) -> None:
        """Take these features and look for no others."""
        self.maps = Maps(several=features)
        self.pinned = True


def _cells(value: object) -> int:
    """Number of cells of a map (N, C, h, w), 0 for what is none."""
    if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point():
        return value.shape[2:].numel()
    return 0


def _linear_operands(
    input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


def _convolution_operands(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Return a 1x1 convolution as a linear layer, None for any other."""
    plain = weight.shape[2:] == (1, 1) and groups == 1 and input.dim() == 4
    if not plain or not _all(stride, 1) or not (padding in ("same", "valid") or _all(padding, 0)):
        return None
    return input, weight[:, :, 0, 0], bias


def _all(value: Any, wanted: int) -> bool:
    return value == wanted or tuple(value) == (wanted, wanted)
