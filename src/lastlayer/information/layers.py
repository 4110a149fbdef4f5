"""H-scores of the layers of a network, collected while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer._checks import check_count
from lastlayer.functional import dependence as dp
from lastlayer.functional.dependence.class_spread import class_spread
from lastlayer.functional.dependence.streaming import HScoreSums
from lastlayer.information.features import FeatureReport, HScore, score_of


def feature_report(
    source: nn.Module | Mapping[str, Tensor],
    target: Tensor,
    *,
    inputs: Tensor | None = None,
    layers: str | Sequence[str] | None = None,
    pool: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 500,
) -> FeatureReport:
    """H-score of every layer of a network, or of given features.

    A network is run batch by batch in evaluation mode and sums are kept, not features. For batches
    from a loader see :class:`LayerScores`.

    Args:
        source: a network, or layer names with their (N, D) or (N, C, ...) features.
        target: (N,) integer labels.
        inputs: (N, ...) inputs of a network.
        layers: as of :class:`LayerScores`.
        pool: turns a layer's output into (N, D) features; None for the mean over what follows the
            channels of (N, C, ...).
        batch_size: examples in a step of the network.

    Returns:
        The :class:`FeatureReport`.

    Raises:
        TypeError: if ``inputs`` or ``layers`` are given beside features, or ``inputs`` are missing
            for a network.
        ValueError: if a shape does not fit, a layer is not found, or a feature is not finite.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> report = feature_report(network, torch.arange(90) % 2, inputs=torch.rand(90, 1, 4, 4))
        >>> list(report.scores)
        ['0', '3']
    """
    check_count("batch_size", batch_size)
    if not isinstance(source, nn.Module):
        if inputs is not None or layers is not None:
            raise TypeError("inputs and layers belong to a network; source holds features already")
        flat = {name: (pool or pool_over_space)(x) for name, x in source.items()}
        return FeatureReport({name: _of_batch(x, target) for name, x in flat.items()})
    if inputs is None:
        raise TypeError("inputs must be given with a network")
    if len(inputs) != len(target):
        raise ValueError(f"inputs must hold {len(target)} examples, as target; got {len(inputs)}")
    with LayerScores(source, layers, pool=pool or pool_over_space) as scores:
        for batch, labels in zip(
            torch.split(inputs, batch_size), torch.split(target, batch_size), strict=True
        ):
            scores.update(batch, labels)
    return scores.report()


def pool_over_space(output: Tensor) -> Tensor:
    """Mean of (N, C, ...) maps over everything behind the channels; (N, D) as it is.

    Example:
        >>> pool_over_space(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """
    return output if output.dim() <= 2 else output.flatten(2).double().mean(2)


class LayerScores:
    """Collect H-scores of the layers of a network while it runs on batches.

    A context manager: it listens to the layers between ``with`` and the end of its block.

    Args:
        model: any network; each layer of interest runs once per batch.
        layers: patterns of dotted module names, as of ``fnmatch``; None for every layer with a
            weight of two dimensions or more (linear layers, convolutions).
        pool: turns a layer's output into (N, D) features.

    Raises:
        ValueError: if a pattern matches no module, or there is no layer.

    Example:
        >>> network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        >>> with LayerScores(network, layers="1") as scores:
        ...     for _ in range(4):
        ...         scores.update(torch.randn(50, 5), torch.arange(50) % 3)
        >>> scores.report().scores["1"].num_examples
        200
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        pool: Callable[[Tensor], Tensor] = pool_over_space,
    ) -> None:
        self._model = model
        self._pool = pool
        self._sums = {name: HScoreSums() for name in _chosen(model, layers)}
        self._target: Tensor | None = None
        self._seen: set[str] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> LayerScores:
        modules = dict(self._model.named_modules())
        for name in self._sums:
            handle = modules[name].register_forward_hook(partial(self._hear, name))
            self._handles.append(handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    @torch.no_grad()
    def update(self, inputs: Any, target: Tensor) -> None:
        """Run the network on a batch in evaluation mode, and add every layer's features.

        Args:
            inputs: what the network takes; a tuple for several arguments.
            target: (B,) integer labels.

        Raises:
            RuntimeError: outside of the ``with`` block.
            ValueError: if a layer does not run exactly once, or its features do not fit.
        """
        if not self._handles:
            raise RuntimeError("update must be called inside the with block")
        training = [module for module in self._model.modules() if module.training]
        self._target, self._seen = target, set()
        try:
            self._model.eval()
            self._model(*inputs) if isinstance(inputs, tuple) else self._model(inputs)
        finally:
            self._target = None
            for module in training:
                module.training = True
        silent = [name for name in self._sums if name not in self._seen]
        if silent:
            raise ValueError(f"layers: {', '.join(silent)} did not run; leave them out")

    def report(self) -> FeatureReport:
        """The scores of everything added so far.

        Returns:
            The :class:`FeatureReport`.

        Raises:
            ValueError: if fewer than two examples were added.
        """
        return FeatureReport({name: _of_sums(sums) for name, sums in self._sums.items()})

    def _hear(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._target is None:  # run by somebody else
            return
        if name in self._seen:
            raise ValueError(f"layers: {name} runs more than once per batch; name another layer")
        if not isinstance(output, Tensor):
            raise ValueError(f"layers: {name} returns {type(output).__name__}, not a tensor")
        self._seen.add(name)
        features = self._pool(output)
        self._sums[name].update(features, self._target.to(features.device))


def _chosen(model: nn.Module, layers: str | Sequence[str] | None) -> list[str]:
    modules = dict(model.named_modules())
    if layers is None:
        names = [name for name, module in modules.items() if _has_matrix(module)]
        if not names:
            raise ValueError(
                f"layers: {type(model).__name__} has no layer with a weight; name some"
            )
        return names
    chosen: set[str] = set()
    for pattern in [layers] if isinstance(layers, str) else layers:
        hits = [name for name in modules if fnmatchcase(name, pattern)]
        if not hits:
            known = ", ".join(name for name in modules if name and name.count(".") < 2)
            raise ValueError(
                f"layers: no module of {type(model).__name__} is called {pattern!r}; it has {known}"
            )
        chosen.update(hits)
    return [name for name in modules if name in chosen]


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() >= 2


def _of_batch(features: Tensor, target: Tensor) -> HScore:
    return score_of(class_spread(features, target), float(dp.shrunk_h_score(features, target)))


def _of_sums(sums: HScoreSums) -> HScore:
    return score_of(sums.spread(), float(sums.shrunk_h_score()))
