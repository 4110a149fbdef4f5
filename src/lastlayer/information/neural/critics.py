"""Critics, networks that score pairs, and the estimators made of them: MINE, DV, NWJ, InfoNCE."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer._checks import check_choice
from lastlayer.functional import information as fi
from lastlayer.information.estimate import InformationEstimate, warn_of_training
from lastlayer.information.neural.estimator import NeuralEstimator, Variable, mlp


class Critic(nn.Module):
    """A function f(x, y) of pairs."""

    @abstractmethod
    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the (N,) scores of the pairs of (N, D) and (N, E)."""

    @abstractmethod
    def all_pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the (N, M) scores of every row of (N, D) with every row of (M, E)."""


class ConcatenatedCritic(Critic):
    """One network on x and y together; its cost grows with the number of pairs.

    Example:
        >>> critic = ConcatenatedCritic(2, 3, hidden=(8, 8))
        >>> critic.all_pairs(torch.zeros(4, 2), torch.zeros(5, 3)).shape
        torch.Size([4, 5])
    """

    def __init__(self, x_width: int, y_width: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        # The first layer in two parts: its products are taken once per row, not once per pair.
        self.of_x = nn.Linear(x_width, hidden[0])
        self.of_y = nn.Linear(y_width, hidden[0], bias=False)
        self.rest = nn.Sequential(nn.ReLU(), mlp((*hidden, 1)))

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the (N,) scores of the pairs of (N, D) and (N, E)."""
        scores: Tensor = self.rest(self.of_x(x) + self.of_y(y))
        return scores.squeeze(-1)

    def all_pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the (N, M) scores of every row of (N, D) with every row of (M, E)."""
        scores: Tensor = self.rest(self.of_x(x).unsqueeze(1) + self.of_y(y))
        return scores.squeeze(-1)


class SeparableCritic(Critic):
    r"""Two networks and an inner product, :math:`f(x, y) = g(x)^\top h(y)`.

    Example:
        >>> critic = SeparableCritic(2, 3, hidden=(8,), embedding=4)
        >>> critic.pairs(torch.zeros(4, 2), torch.zeros(4, 3)).shape
        torch.Size([4])
    """

    def __init__(
        self, x_width: int, y_width: int, *, hidden: Sequence[int], embedding: int = 32
    ) -> None:
        super().__init__()
        self.of_x = mlp((x_width, *hidden, embedding))
        self.of_y = mlp((y_width, *hidden, embedding))

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the (N,) scores of the pairs of (N, D) and (N, E)."""
        scores: Tensor = torch.linalg.vecdot(self.of_x(x), self.of_y(y))
        return scores

    def all_pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the (N, M) scores of every row of (N, D) with every row of (M, E)."""
        scores: Tensor = self.of_x(x) @ self.of_y(y).mT
        return scores


#: The bound that each objective is evaluated by.
BOUNDS = {
    "donsker-varadhan": fi.donsker_varadhan_bound,
    "nwj": fi.nwj_bound,
    "info-nce": fi.info_nce_bound,
    "mine": fi.donsker_varadhan_bound,
}
CRITICS = {"concatenated": ConcatenatedCritic, "separable": SeparableCritic}


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
            value, error = float(bound.value), float(bound.standard_error)
        else:
            blocks = max(1, round(len(y) / self.batch_size))
            parts = zip(torch.tensor_split(x, blocks), torch.tensor_split(y, blocks), strict=True)
            bounds = [self._bound(rows, labels) for rows, labels in parts]
            value = sum(float(bound.value) for bound in bounds) / blocks
            variance = sum(float(bound.standard_error) ** 2 for bound in bounds) / blocks**2
            error = math.sqrt(variance)
            if self.kind == "info-nce":
                cap = math.log(math.ceil(len(y) / blocks))
                notes = (*notes, f"InfoNCE cannot exceed {cap:.4f} nats, the log of its batch.")
        return InformationEstimate(value, error, n=len(y), kind=self.kind, notes=notes)
