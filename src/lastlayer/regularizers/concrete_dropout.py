"""Concrete dropout: the rate is learned through a relaxed mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lastlayer._checks import check_positive
from lastlayer.functional.feature_noise import concrete_dropout, concrete_dropout_kl
from lastlayer.functional.numerics import at_least_float32
from lastlayer.regularizers.adaptive import AdaptiveRegularizer


class ConcreteDropout(AdaptiveRegularizer):
    r"""Drop units with one learned rate p.

    .. math:: \text{penalty} = \frac1N \Bigl(\frac{l^2}{2 (1 - p)} \lVert W \rVert^2
        - C \, H(p)\Bigr)

    with W the weight of ``layer``, which reads the features. The mathematics is
    :func:`lastlayer.functional.feature_noise.concrete_dropout` and
    :func:`lastlayer.functional.feature_noise.concrete_dropout_kl`. In evaluation the features pass
    unchanged, the mean in place of the authors' average over masks.

    Args:
        num_features: number of channels C.
        num_examples: number of training examples N.
        p: initial rate, in (0, 1).
        temperature: of the relaxed mask, above 0.
        layer: the next layer, whose ``weight`` is penalized; held by reference, it is neither a
            submodule nor in the ``state_dict`` here. Without it the first term is left out.
        length_scale: prior length scale l of W, above 0.
        unit: what one mask is drawn for: a ``"channel"`` of an example (C of them, as the penalty
            counts), every ``"element"``, or an ``"example"``.
        channel_dim: 1 for features ``(N, C, ...)``, -1 for channels last, ``(N, ..., C)``.
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if an argument is out of range, or ``layer`` has no weight.

    Example:
        >>> linear = torch.nn.Linear(3, 2)
        >>> dropout = ConcreteDropout(num_features=3, num_examples=100, layer=linear)
        >>> round(dropout.p, 6)
        0.1
        >>> linear(dropout(torch.ones(4, 3))).shape
        torch.Size([4, 2])

    Source: Gal, Hron, Kendall, "Concrete Dropout", arXiv 1705.07832.
    """

    def __init__(
        self,
        num_features: int,
        num_examples: int,
        *,
        p: float = 0.1,
        temperature: float = 0.1,
        layer: nn.Module | None = None,
        length_scale: float = 1e-4,
        unit: str = "channel",
        channel_dim: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check_positive("temperature", temperature)
        check_positive("length_scale", length_scale)
        if layer is not None and not isinstance(getattr(layer, "weight", None), Tensor):
            raise ValueError(f"layer must have a weight; got {type(layer).__name__}")
        super().__init__(
            num_features,
            num_examples,
            p=p,
            unit=unit,
            channel_dim=channel_dim,
            generator=generator,
        )
        self.temperature = temperature
        self.length_scale = length_scale
        # In a tuple it does not become a submodule, and is copied along with the network.
        self._layers = () if layer is None else (layer,)
        self.p_logit = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the initial rate."""
        with torch.no_grad():
            self.p_logit.fill_(self.initial_logit)

    def learned_rate(self) -> Tensor:
        """Return p, ``()``."""
        return torch.sigmoid(at_least_float32(self.p_logit))

    def divergence(self) -> Tensor:
        """Return the divergence of the weights' posterior from their prior, ``()``, in nats."""
        weight: Any = self._layers[0].weight if self._layers else None
        return concrete_dropout_kl(
            self.p_logit, self.num_features, weight=weight, length_scale=self.length_scale
        )

    def _regularize(self, features: Tensor) -> Tensor:
        return concrete_dropout(
            features,
            self.p_logit,
            temperature=self.temperature,
            unit=self.unit,
            channel_dim=self.channel_dim,
            generator=self.generator,
        )
