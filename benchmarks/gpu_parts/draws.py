"""The same random numbers on every device and in every precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class SharedDraws(TorchDispatchMode):
    """While it is on, whatever draws random numbers gets those of one generator on the CPU.

    Uniform numbers are multiples of 2^-24, which float32 holds, so that a run in float64 on the CPU
    and one in float32 on a GPU see equal numbers. Only the order of the draws counts, not which
    generator they were to come from.

    Args:
        seed: of the numbers.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        draw = _DRAWS.get(func.overloadpacket.__name__)
        if draw is None:
            return func(*args, **kwargs)
        # What would be drawn, for its shape, dtype and device; a multinomial cannot be poisoned.
        out = func(*args, **kwargs)
        drawn = draw(self, out, args, kwargs)
        return out.copy_(drawn) if isinstance(out, Tensor) else out

    def uniform(self, out: Tensor) -> Tensor:
        return torch.rand(out.shape, generator=self.source).double()

    def _uniform(self, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        low, high = (*args[1:3], *(0.0, 1.0)[len(args[1:3]) :]) if _in_place(out, args) else (0, 1)
        low, high = kwargs.get("from", low), kwargs.get("to", high)
        return low + (high - low) * self.uniform(out)

    def _normal(self, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        mean, std = (*args[1:3], *(0.0, 1.0)[len(args[1:3]) :]) if _in_place(out, args) else (0, 1)
        return mean + std * torch.randn(out.shape, generator=self.source).double()

    def _exponential(self, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        rate = args[1] if len(args) > 1 else kwargs.get("lambd", 1.0)
        # Away from 0, where a logarithm of float32 would lose its digits.
        return -torch.log(self.uniform(out).clamp_min(2.0**-20)) / rate

    def _bernoulli(self, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        given = args[1] if len(args) > 1 else kwargs.get("p", args[0])
        p = given.detach().cpu().double() if isinstance(given, Tensor) else given
        return (self.uniform(out) < p).double()

    def _integers(self, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        bounds = [x for x in args if isinstance(x, int)]
        low, high = bounds if len(bounds) == 2 else (0, bounds[0])
        return torch.randint(low, high, out.shape, generator=self.source)

    def _permutation(self, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return torch.randperm(len(out), generator=self.source)

    def _multinomial(self, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        weights, number, *replacement = args
        # In float32 on both sides: the numbers are compared with sums of the weights.
        return torch.multinomial(
            weights.detach().cpu().float(),
            number,
            replacement[0] if replacement else kwargs.get("replacement", False),
            generator=self.source,
        )


def _in_place(out: Tensor, args: tuple[Any, ...]) -> bool:
    return bool(args) and args[0] is out


_DRAWS: dict[str, Callable[..., Tensor]] = {
    "rand": SharedDraws._uniform,
    "rand_like": SharedDraws._uniform,
    "uniform_": SharedDraws._uniform,
    "randn": SharedDraws._normal,
    "randn_like": SharedDraws._normal,
    "normal_": SharedDraws._normal,
    "exponential_": SharedDraws._exponential,
    "bernoulli": SharedDraws._bernoulli,
    "bernoulli_": SharedDraws._bernoulli,
    "randint": SharedDraws._integers,
    "randperm": SharedDraws._permutation,
    "multinomial": SharedDraws._multinomial,
}
