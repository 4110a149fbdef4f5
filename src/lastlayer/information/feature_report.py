"""H-scores of the layers of a network, collected while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer._channels import Channels, output_channel_dim
from lastlayer._checks import as_label_tensor, check_count
from lastlayer._inputs import Inputs, batches, call, evaluating, num_examples
from lastlayer._patterns import matching_names
from lastlayer._text import aligned
from lastlayer.functional.dependence.streaming import HScoreSums
from lastlayer.information.h_score import HScore, described, score_of_features

HEADINGS = ("layer", "features", "rank", "H", "null", "H - null", "shrunk", "max")


@dataclass(frozen=True)
class FeatureReport:
    """H-scores by layer, in the order of the network.

    Attributes:
        scores: layer name to its :class:`HScore`.
        left_out: layer name to why it has no score.
    """

    scores: dict[str, HScore]
    left_out: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Every number by layer and name, for JSON."""
        return {name: score.as_dict() for name, score in self.scores.items()}

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [HEADINGS]
        for name, s in self.scores.items():
            numbers = (f"{x:.3f}" for x in (s.value, s.null, s.above_null, s.shrunk))
            rows.append((name, str(s.num_features), str(s.rank), *numbers, str(s.maximum)))
        notes = (f"{name}: {note}" for name, s in self.scores.items() for note in s.warnings)
        missing = (f"{name} is left out: it {why}" for name, why in self.left_out.items())
        return aligned(rows, (*notes, *missing))


def feature_report(
    source: nn.Module | Mapping[str, Tensor],
    target: Tensor | Sequence[int],
    *,
    inputs: Inputs | None = None,
    layers: str | Sequence[str] | None = None,
    channel_dim: int | None = None,
    pool: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 500,
) -> FeatureReport:
    """H-score of every layer of a network, or of given features.

    A network is run batch by batch in evaluation mode and sums are kept, not features. For batches
    from a loader see :class:`LayerScores`.

    Args:
        source: a network, or layer names with their features, (N, D) or of more dimensions.
        target: (N,) integer labels.
        inputs: inputs of a network, N rows each: a tensor, a tuple of them for several arguments,
            or a mapping of names to them for keywords.
        layers: as of :class:`LayerScores`.
        channel_dim: dimension of the features where there are more than two: 1 of maps
            (N, C, H, W), -1 of tokens (N, T, D). Given features need it; of a network's layers
            those that do not tell it themselves.
        pool: turns a layer's output into (N, D) features; None for the mean over all dimensions
            but the examples' and the features'.
        batch_size: examples in a step of the network.

    Returns:
        The :class:`FeatureReport`.

    Raises:
        TypeError: if ``source`` is neither, ``target`` holds no integers, ``inputs`` or ``layers``
            are given beside features, or ``inputs`` are missing for a network, or neither tensors
            nor made of them.
        ValueError: if a shape does not fit, a layer is not found, a feature is not finite, or it is
            unclear which dimension holds the features.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> report = feature_report(network, torch.arange(90) % 2, inputs=torch.rand(90, 1, 4, 4))
        >>> list(report.scores)
        ['0', '3']
    """
    check_count("batch_size", batch_size)
    target = as_label_tensor("target", target)
    if not isinstance(source, nn.Module):
        if inputs is not None or layers is not None:
            raise TypeError("inputs and layers belong to a network; source holds features already")
        if not isinstance(source, Mapping) or not source:
            raise TypeError(
                "source must be a network, or a mapping of names to features; "
                f"got {'an empty one' if isinstance(source, Mapping) else type(source).__name__}"
            )
        pooled = {name: _pooled(name, x, channel_dim, pool) for name, x in source.items()}
        return FeatureReport({name: score_of_features(x, target) for name, x in pooled.items()})
    if inputs is None:
        raise TypeError("inputs must be given with a network")
    if num_examples(inputs) != len(target):
        raise ValueError(
            f"inputs must hold {len(target)} examples, as target; got {num_examples(inputs)}"
        )
    with LayerScores(source, layers, channel_dim=channel_dim, pool=pool) as scores:
        for batch, labels in zip(
            batches(inputs, int(batch_size)), torch.split(target, int(batch_size)), strict=True
        ):
            scores.update(batch, labels)
    return scores.report()


class LayerScores:
    """Collect H-scores of the layers of a network while it runs on batches.

    A context manager: it listens to the layers between ``with`` and the end of its block.

    Args:
        model: any network.
        layers: patterns of dotted module names, in which ``*`` stays within one name and ``**``
            crosses the dots, as in ``"blocks.**"``; each of these layers must run once per batch
            and return one row for each example. None for every layer with a weight of two
            dimensions or more (linear layers, convolutions) that does; others are left out, and
            the report says why.
        channel_dim: dimension of the features in outputs of more than two, for layers that do not
            tell it themselves; None to refuse these.
        pool: turns a layer's output into (N, D) features; None for the mean over all other
            dimensions.

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
        channel_dim: int | None = None,
        pool: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._model, self._channel_dim, self._pool = model, channel_dim, pool
        self._named = layers is not None
        self._sums = {name: HScoreSums() for name in _chosen(model, layers)}
        self._left_out: dict[str, str] = {}
        self._batch: _Batch | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> LayerScores:
        for name, module in self._model.named_modules():
            self._handles.append(module.register_forward_hook(partial(self._hear, name)))
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
    def update(self, inputs: Inputs, target: Tensor) -> None:
        """Run the network on a batch in evaluation mode, and add every layer's features.

        Args:
            inputs: what the network takes; a tuple for several arguments, a mapping for keywords.
            target: (B,) integer labels.

        Raises:
            RuntimeError: outside of the ``with`` block.
            ValueError: if a named layer does not run exactly once, its features do not fit, or it
                is unclear which dimension holds them; or if no layer is left.
        """
        if not self._handles:
            raise RuntimeError("update must be called inside the with block")
        batch = self._batch = _Batch(len(target))
        try:
            with evaluating(self._model):
                call(self._model, inputs)
        finally:
            self._batch = None
        for name in self._sums.keys() - batch.problems.keys() - batch.features.keys():
            batch.problems[name] = "did not run"
        self._leave_out(batch.problems)
        for name, sums in self._sums.items():
            features = batch.features[name]
            sums.update(features, target.to(features.device))

    def report(self) -> FeatureReport:
        """The scores of everything added so far.

        Returns:
            The :class:`FeatureReport`.

        Raises:
            ValueError: if fewer than two examples were added.
        """
        scores = {}
        for name, sums in self._sums.items():
            value, rank = sums.h_score_and_rank()
            scores[name] = described(value, sums.shrunk_h_score(), rank, *sums.sizes)
        return FeatureReport(scores, dict(self._left_out))

    def _hear(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        batch = self._batch
        if batch is None:  # run by somebody else
            return
        if isinstance(output, tuple) and output:  # as attention does: what it returns, and more
            output = output[0]
        if not isinstance(output, Tensor):
            batch.problems[name] = f"returns {type(output).__name__}, not a tensor"
            return
        dim = output_channel_dim(module, output, batch.before)
        batch.before = None if dim is None or output.dim() <= 2 else Channels(dim, output.shape)
        if name in self._sums:
            self._take(batch, name, output, self._channel_dim if dim is None else dim)

    def _take(self, batch: _Batch, name: str, output: Tensor, dim: int | None) -> None:
        """Pool a chosen layer's output at once: what follows may change it in place."""
        shape = tuple(output.shape)
        if name in batch.features:
            batch.problems[name] = "runs more than once per batch; name another layer"
        elif output.dim() == 0 or len(output) != batch.size:
            batch.problems[name] = f"returns shape {shape} for {batch.size} examples"
        elif self._pool is not None:
            batch.features[name] = self._pool(output.clone())
        elif dim is None:
            batch.problems[name] = f"returns shape {shape}; give channel_dim, that of its features"
        else:
            features = pool_features(output, dim)
            batch.features[name] = features.clone() if features is output else features

    def _leave_out(self, problems: Mapping[str, str]) -> None:
        """Give up layers that cannot be scored, or raise where they were asked for."""
        found = {name: why for name, why in problems.items() if name in self._sums}
        if found and (self._named or found.keys() == self._sums.keys()):
            raise ValueError("layers: " + "; ".join(f"{name} {found[name]}" for name in found))
        for name in found:
            del self._sums[name]
        self._left_out |= found


@dataclass
class _Batch:
    """What a pass over one batch of ``size`` examples was heard to return.

    ``features``, (N, D), are of the chosen layers; ``problems`` say why a module cannot be scored;
    ``before`` are the channels of what the last module returned.
    """

    size: int
    features: dict[str, Tensor] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    before: Channels | None = None


def _pooled(
    name: str, features: Tensor, dim: int | None, pool: Callable[[Tensor], Tensor] | None
) -> Tensor:
    if not isinstance(features, Tensor):
        raise TypeError(f"source: {name} must be a tensor; got {type(features).__name__}")
    if pool is not None:
        return pool(features)
    if dim is None and features.dim() > 2:
        raise ValueError(
            f"source: {name} has shape {tuple(features.shape)}; give channel_dim, the dimension of "
            "its features: 1 for (N, C, H, W), -1 for (N, T, D)"
        )
    return pool_features(features, 1 if dim is None else dim)


def pool_features(output: Tensor, dim: int) -> Tensor:
    """Return (N, D) features of an output: the mean over all other dimensions.

    The features are in ``dim``, not 0, of the (N, ...) output; (N, D) stays as it is.

    Example:
        >>> pool_features(torch.ones(2, 4, 4, 3), -1).shape
        torch.Size([2, 3])
    """
    if output.dim() <= 2:
        return output
    if not -output.dim() < dim < output.dim() or dim == 0:
        raise ValueError(
            f"channel_dim must be a dimension of features of shape {tuple(output.shape)} other "
            f"than the first; got {dim}"
        )
    return output.movedim(dim, 1).flatten(2).double().mean(2)


def _chosen(model: nn.Module, layers: str | Sequence[str] | None) -> list[str]:
    modules = dict(model.named_modules())
    if layers is None:
        weights = {name: getattr(module, "weight", None) for name, module in modules.items()}
        names = [name for name, w in weights.items() if isinstance(w, Tensor) and w.dim() >= 2]
        if not names:
            raise ValueError(
                f"layers: {type(model).__name__} has no layer with a weight; name some"
            )
        return names
    chosen: set[str] = set()
    for pattern in [layers] if isinstance(layers, str) else layers:
        hits = matching_names(pattern, modules)
        if not hits:
            known = ", ".join(name for name in modules if name and name.count(".") < 2)
            raise ValueError(
                f"layers: no module of {type(model).__name__} is called {pattern!r}; it has {known}"
            )
        chosen.update(hits)
    return [name for name in modules if name in chosen]
