"""Critics as estimators: MINE, Donsker-Varadhan, NWJ and InfoNCE."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lastlayer._checks import check_choice
from lastlayer.functional import information as fi
from lastlayer.information.inputs import warn_of_training
from lastlayer.information.neural.estimator import NeuralEstimator, Variable
from lastlayer.information.neural.networks import ConcatenatedCritic, Critic, SeparableCritic
from lastlayer.information.result import InformationEstimate

#: The bound that each objective is evaluated by.
BOUNDS = {
    "donsker-varadhan": fi.donsker_varadhan_bound,
    "nwj": fi.nwj_bound,
    "info-nce": fi.info_nce_bound,
    "mine": fi.donsker_varadhan_bound,
}
CRITICS = {"concatenated": ConcatenatedCritic, "separable": SeparableCritic}


class _Part(NamedTuple):
    value: float
    standard_error: float


class CriticEstimator(NeuralEstimator):
    r"""A critic f(x, y), trained on a bound and evaluated by it on held-out pairs.

    ``"donsker-varadhan"``, ``"nwj"`` and ``"info-nce"`` take the product of the margins from all
    pairs of a batch; ``"mine"`` from one shuffling of the batch, with the moving average in its
    gradient, and is evaluated by Donsker's and Varadhan's bound.

    Discrete y is scored as a whole alphabet, which stands for all pairs at the price of one row
    each. Continuous y needs a matrix of ``batch_size`` squared, evaluated block by block.
    InfoNCE is evaluated in blocks of about ``batch_size`` in either case: it is capped at the
    logarithm of the block's size.

    Args:
        kind: ``"mine"``, ``"donsker-varadhan"``, ``"nwj"`` or ``"info-nce"``.
        critic: ``"concatenated"`` (one network on both) or ``"separable"`` (an inner product).
        rate: rate of MINE's moving average, in (0, 1].
        **options: see :class:`NeuralEstimator`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> y = torch.arange(200) % 2
        >>> x = y.float().unsqueeze(-1)
        >>> estimator = CriticEstimator("mine", hidden=(8,), epochs=50, batch_size=50,
        ...                             learning_rate=0.05).fit(x, y)
        >>> 0.6 < estimator.estimate(x, y).value < 0.7
        True

    Source: Belghazi et al., "Mutual Information Neural Estimation", ICML 2018; van den Oord, Li and
    Vinyals, "Representation Learning with Contrastive Predictive Coding", arXiv 1807.03748;
    Nguyen, Wainwright and Jordan, IEEE Trans. Inf. Theory 2010.
    """

    network: Critic

    def __init__(
        self,
        kind: str = "mine",
        *,
        critic: str = "concatenated",
        rate: float = 0.01,
        **options: Any,
    ) -> None:
        check_choice("kind", kind, BOUNDS)
        check_choice("critic", critic, CRITICS)
        if not 0.0 < rate <= 1.0:
            raise ValueError(f"rate must lie in (0, 1]; got {rate!r}")
        super().__init__(**options)
        self.kind, self.critic, self.rate = kind, critic, rate

    def _build(self, x: Variable, y: Variable) -> nn.Module:
        self.network = CRITICS[self.critic](x.width, y.width, hidden=self.hidden)
        self._label = y
        return self.network

    def _prepare(self, y: Tensor) -> None:
        self._log_average: Tensor | None = None

    def _objective(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        if self.kind != "mine":
            return self._bound(x, y).value
        labels = self._label.encode(y)
        shuffled = labels[torch.randperm(len(y), generator=generator)]
        joint, marginal = self.network.pairs(
            torch.cat((x, x)), torch.cat((labels, shuffled))
        ).chunk(2)
        step = fi.mine_objective(joint, marginal, self._log_average, rate=self.rate)
        self._log_average = step.log_average
        return step.objective

    def _bound(self, x: Tensor, y: Tensor) -> fi.BoundEstimate:
        """Return the bound on all pairs of x and y."""
        bound = BOUNDS[self.kind]
        if self._label.discrete:
            return bound(self._label_scores(x), y)
        return bound(self.network.all_pairs(x, self._label.encode(y)))

    def _label_scores(self, x: Tensor) -> Tensor:
        """Return the (N, K) scores of every label."""
        return self.network.all_pairs(x, torch.eye(self._label.width, device=x.device))

    def _estimate(self, x: Tensor, y: Tensor, held_out: bool) -> InformationEstimate:
        notes = warn_of_training(held_out, stacklevel=5)
        if self._label.discrete and self.kind != "info-nce":
            scores = torch.cat(
                [self._label_scores(rows) for rows in torch.split(x, self.batch_size)]
            )
            bound = BOUNDS[self.kind](scores.double(), y)
            part = _Part(float(bound.value), float(bound.standard_error))
        else:
            blocks = max(1, round(len(y) / self.batch_size))
            part = self._mean_over_blocks(x, y, blocks)
            if self.kind == "info-nce":
                cap = math.log(math.ceil(len(y) / blocks))
                notes = (*notes, f"InfoNCE cannot exceed {cap:.4f} nats, the log of its batch.")
        return InformationEstimate(*part, n=len(y), kind=self.kind, notes=notes)

    def _mean_over_blocks(self, x: Tensor, y: Tensor, blocks: int) -> _Part:
        bounds = [
            self._bound(rows, labels)
            for rows, labels in zip(
                torch.tensor_split(x, blocks), torch.tensor_split(y, blocks), strict=True
            )
        ]
        value = sum(float(bound.value) for bound in bounds) / blocks
        variance = sum(float(bound.standard_error) ** 2 for bound in bounds) / blocks**2
        return _Part(value, math.sqrt(variance))
