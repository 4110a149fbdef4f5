"""What every regularizer has in common: a rate that a schedule moves, identity outside training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lastlayer._checks import check_floating, check_probability


class Regularizer(nn.Module):
    """Base of the regularizers: a map to a map of the same shape, dtype and memory format.

    In evaluation, and at rate 0, the input itself is returned and nothing is drawn. A checkpoint
    holds the rate. Compiled code reads it from a buffer and so does not depend on its value; eager
    code reads a number on the host, so that no step waits for the device.

    A subclass gives :meth:`_regularize`; where it needs them, :meth:`check_dims`,
    :meth:`_check_rate`, :meth:`_evaluate` and :meth:`penalty` too. One that takes the argument
    ``channel_dim`` is told by :func:`lastlayer.regularizers.insert` where the channels are.

    Args:
        p: the rate, in [0, 1]; what it is the rate of, the subclass says.
        generator: source of all random numbers, on the features' device; None for torch's default,
            which compiled code needs. A copy has a generator of its own, in the same state. Under
            activation checkpointing (``torch.utils.checkpoint``), which runs forward again in the
            backward pass and restores torch's default generators alone, it is refused there.

    Raises:
        ValueError: if ``p`` is no probability.
    """

    #: What one number is drawn for; beyond ``"element"``, dimension 0 must be the examples.
    unit: str = "element"
    _inserted: bool = False  # whether it acts by a hook of the module around it alone
    _rate: Tensor

    def __init__(self, p: float, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("_rate", torch.zeros(()), persistent=False)
        self._set_rate(p)

    @property
    def p(self) -> float:
        """The rate."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        self._set_rate(value)

    def _set_rate(self, value: float) -> None:
        self._check_rate(value)
        self._p = float(value)
        self._rate.fill_(self._p)

    def _check_rate(self, value: float) -> None:
        check_probability("p", value)

    def forward(self, features: Tensor) -> Tensor:
        """Return the regularized features.

        Args:
            features: ``(N, ...)``, floating point.

        Returns:
            As ``features``; in evaluation and at rate 0 ``features`` itself.

        Raises:
            TypeError: if the features are not floating point.
        """
        if not torch.compiler.is_compiling() and self._p == 0.0:
            return features
        if not self.training:
            return self._evaluate(features)
        check_floating("features", features)
        return self._regularize(features)

    def check_dims(self, dims: int) -> None:
        """Raise ``ValueError`` unless features of so many dimensions are taken.

        Args:
            dims: number of dimensions, the examples' included.
        """

    @property
    def rate(self) -> float | Tensor:
        """The rate as the functional forms take it: a number, or a tensor in compiled code."""
        return self._rate if torch.compiler.is_compiling() else self._p

    def penalty(self) -> Tensor:
        """Return what to add to the loss per example, the mean over a batch.

        Returns:
            Nats per example, ``()``; 0 unless the regularizer learns something.
        """
        return self._rate.new_zeros(())

    def _regularize(self, features: Tensor) -> Tensor:
        raise NotImplementedError

    def _evaluate(self, features: Tensor) -> Tensor:
        return features

    def get_extra_state(self) -> Tensor:
        """Return the rate, all of its digits, for ``state_dict``."""
        return torch.tensor(self._p, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take up the rate of a ``state_dict``."""
        self._set_rate(float(state))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # A change of dtype is for weights; in half precision the rate would lose digits.
        self._rate = torch.full((), self._p, device=self._rate.device)
        return self

    def extra_repr(self) -> str:
        """Name the rate."""
        return f"p={self._p:g}"


def total_penalty(module: nn.Module) -> Tensor:
    """Sum the penalties of all regularizers in a network, each counted once.

    Args:
        module: the network.

    Returns:
        Nats per example, ``()``, to be added to a loss that is a mean over examples; 0 if there is
        no regularizer or none that learns.

    Example:
        >>> from lastlayer.regularizers import Dropout, VariationalDropout
        >>> total_penalty(nn.Sequential(nn.Linear(3, 2), Dropout(0.5)))
        tensor(0.)
        >>> layer = VariationalDropout(num_features=2, num_examples=100)
        >>> bool(total_penalty(nn.Sequential(layer, layer)) == layer.penalty())
        True
    """
    penalties = [part.penalty() for part in module.modules() if isinstance(part, Regularizer)]
    if penalties:
        return torch.stack(penalties).sum()
    parameter = next(module.parameters(), None)
    return torch.zeros((), device=None if parameter is None else parameter.device)
