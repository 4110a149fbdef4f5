"""Class counts inside a module: exact whatever happens to it, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lastlayer._checks import can_look, in_backward, in_torch_func
from lastlayer.functional.autograd import Function
from lastlayer.functional.class_priors import as_class_counts


class ExactBuffers(nn.Module):
    """A module some of whose buffers keep their digits: no cast takes any, a state brings its own.

    ``module.half()`` leaves them as they are, and ``load_state_dict`` takes up the dtype of the
    state, so that shares loaded into a place of whole counts stay shares.
    """

    #: Names of those buffers.
    exact_buffers: tuple[str, ...] = ("class_counts",)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = {name: self._buffers.get(name) for name in self.exact_buffers}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = self._buffers.get(name)
            if old is None or new is None:
                continue
            if new.dtype != torch.promote_types(old.dtype, new.dtype):
                self._buffers[name] = old.to(new.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in self.exact_buffers:
            here, there = self._buffers.get(name), state_dict.get(prefix + name)
            if here is not None and isinstance(there, Tensor):
                there = there if here.is_floating_point() else whole_if_possible(there)
                if there.is_floating_point():
                    there = there.to(torch.promote_types(there.dtype, torch.float32))
                self._buffers[name] = here.to(there.dtype)
                state_dict[prefix + name] = there
        super()._load_from_state_dict(state_dict, prefix, *rest)


class CachedTensor:
    """A tensor that follows from others, computed anew when one of them is another or changed.

    Copies and pickles of the module that holds it start empty.
    """

    def __init__(self) -> None:
        self._last: tuple[tuple[Tensor, ...], tuple[int, ...], Tensor] | None = None

    def __call__(self, compute: Callable[..., Tensor], *sources: Tensor) -> Tensor:
        """Return ``compute(*sources)``."""
        last = self._last
        if last is not None and not torch.compiler.is_compiling():
            held, versions, value = last
            pairs = zip(sources, held, versions, strict=False)
            if all(now is then and now._version == version for now, then, version in pairs):
                return value
        if not can_look(*sources, wait=True) or any(source.is_inference() for source in sources):
            return compute(*sources)
        with torch.inference_mode(False), torch.no_grad():  # for any later use
            value = compute(*sources)
        self._last = (sources, tuple(source._version for source in sources), value)
        return value

    def __reduce__(self) -> tuple[type[CachedTensor], tuple[()]]:
        return CachedTensor, ()


def whole_if_possible(counts: Tensor) -> Tensor:
    """Return counts as int64 if all are whole numbers that can be seen, else as they are."""
    if not counts.is_floating_point() or not can_look(counts, wait=True):
        return counts
    whole = bool((counts == counts.round()).all()) and bool((counts.abs() < 2.0**62).all())
    return counts.to(torch.int64) if whole else counts


def stored_counts(
    class_counts: Tensor | Sequence[float],
    num_classes: int | None,
    device: torch.device | None,
    **options: Any,
) -> Tensor:
    """Return checked counts as a module keeps them: int64 if whole, on the module's device.

    ``device=None`` is the device that they come from. The options are those of
    :func:`lastlayer.functional.class_priors.as_class_counts`.
    """
    given = class_counts
    if isinstance(given, Tensor):
        device = given.device if device is None else device
        given = given.detach() if given.is_meta else given.detach().cpu()
    counts = whole_if_possible(as_class_counts(given, num_classes, **options))
    return counts.to(torch.get_default_device() if device is None else device)


class CheckpointedCounts:
    """The running counts that draws go by, as they were when the forward pass began.

    Activation checkpointing runs a forward pass again in the backward pass, which counts labels:
    it has to draw from the counts that the first run drew from.
    """

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def __call__(self, counts: Tensor) -> Tensor:
        """Return (K,) ``counts``, in a recomputation those of the last forward pass."""
        if torch.compiler.is_compiling() or in_torch_func():
            return counts
        if self._held is None or not in_backward():
            self._held = counts.clone()
        return self._held

    def __reduce__(self) -> tuple[type[CheckpointedCounts], tuple[()]]:
        return CheckpointedCounts, ()


def count_when_trained(loss: Tensor, counts: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Return a loss whose gradient, once taken, adds the targets to (K,) int64 counts.

    A loss that is only looked at is not counted, a forward pass that checkpointing runs again only
    once. The counts are summed over all processes, and every process of the default group must
    take the gradient equally often. Inside a transform of ``torch.func``, which allows no such
    effect, nothing is counted.
    """
    if in_torch_func() or not loss.requires_grad:
        return loss
    counted: Tensor = _Counted.apply(loss, counts, target, ignore_index)  # type: ignore[no-untyped-call]
    return counted


class _Counted(Function):
    """The identity; a hook would do, but not every torch compiles hooks inside a graph."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *labels: Any) -> Tensor:
        ctx.labels, ctx.done = labels, False
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if not ctx.done:  # a graph that is kept is gone through more than once
            _add_labels(*ctx.labels)
        if not torch.compiler.is_compiling():
            ctx.done = True
        return grad, None, None, None


@torch.no_grad()
def _add_labels(counts: Tensor, target: Tensor, ignore_index: int) -> None:
    labels = target.reshape(-1)
    kept = labels != ignore_index
    seen = torch.zeros_like(counts)
    seen.index_add_(0, torch.where(kept, labels, 0), kept.to(counts.dtype))
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(seen)
    counts.add_(seen)
