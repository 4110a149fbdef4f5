"""What a network of another library is: how it is built, what it takes, where its places are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Classes of every network that is built with a classifier.
NUM_CLASSES = 7


@dataclass(frozen=True)
class Inputs:
    """Arguments of a network's ``forward``."""

    args: tuple[Tensor, ...] = ()
    kwargs: dict[str, Tensor] | None = None

    def to(self, network: nn.Module, **more: Any) -> Any:
        """Call a network with them."""
        return network(*self.args, **(self.kwargs or {}), **more)

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (*self.args, *(self.kwargs or {}).values())

    def whole(self) -> Tensor | dict[str, Tensor]:
        """The inputs as one thing: a tensor, or a dictionary."""
        return self.kwargs or self.args[0]


@dataclass(frozen=True)
class Network:
    """A network and what is known of it from its own source code.

    Attributes:
        name: library and architecture.
        make: builds it, without trained weights.
        inputs: makes the inputs of a number of examples.
        layer: dotted name of its last linear layer; None if it has none.
        where: pattern of its residual blocks, or of what it has instead; ``*`` is one name.
        axes: of an example and of a channel in the output of a block.
        maps: whether it takes images, so that class maps could be asked for.
        shortcuts: what it calls the way around a block, beside the usual names.
        headless: makes a network of it that returns features, where it has no linear layer; and
            how many features.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    layer: str | None
    where: str
    axes: tuple[int, int] = (0, 1)
    maps: bool = True
    shortcuts: tuple[str, ...] = ()
    headless: tuple[Callable[[nn.Module], None], int] | None = None

    def build(self) -> nn.Module:
        """Return a network of its own, the same each time, in evaluation mode."""
        return copy.deepcopy(_built(self))


@lru_cache(maxsize=1)
@torch.no_grad()
def _built(made: Network) -> nn.Module:
    torch.manual_seed(0)
    network = made.make()
    for parameter in network.parameters():
        # Many networks start from zeros, so that branches or whole predictions would be 0.
        if parameter.dim() < 2:
            parameter += 0.05 * torch.randn_like(parameter)
        elif bool((parameter == 0).all()):
            parameter += 0.02 * torch.randn_like(parameter)
    _take_statistics(network, made.inputs(8))
    spread = logits_of(made.inputs(8).to(network.eval())).std(0).mean()
    if not spread > 1e-4:
        raise RuntimeError(f"predictions of {made.name} do not depend on the input ({spread:.1e})")
    if made.layer is not None:
        network.get_submodule(made.layer).weight /= spread
    return network


def _take_statistics(network: nn.Module, inputs: Inputs) -> None:
    """Give batch normalization the statistics of a batch: with 0 and 1 deep maps tend to 0."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        inputs.to(network.train())
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def logits_of(output: Any) -> Tensor:
    """Return the logits in what a network gives back."""
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, tuple) else output


def loss_of(output: Any, target: Tensor) -> Tensor:
    """Cross-entropy of the logits, and of auxiliary ones where there are some."""
    if getattr(output, "logits", None) is not None and not isinstance(output, tuple):
        return F.cross_entropy(output.logits, target)
    several = output if isinstance(output, tuple) else (output,)
    return torch.stack([F.cross_entropy(one, target) for one in several if one is not None]).sum()


def images(size: int) -> Callable[[int], Inputs]:
    """Make batches of random images of a side."""

    def make(count: int) -> Inputs:
        noise = torch.Generator().manual_seed(count)
        return Inputs((torch.randn(count, 3, size, size, generator=noise),))

    return make


def tokens(count: int) -> Inputs:
    """Random sentences of nine tokens that end in token 2, with their mask."""
    ids = torch.randint(5, 60, (count, 9), generator=torch.Generator().manual_seed(count))
    ids[:, -1] = 2
    return Inputs(kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
