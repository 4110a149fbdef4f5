"""Small networks that score pairs: every critic gives single pairs and all pairs."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Return fully connected layers with ReLU in between.

    Args:
        sizes: width of the input, of every hidden layer and of the output.

    Returns:
        (N, sizes[0]) to (N, sizes[-1]).

    Example:
        >>> mlp((2, 8, 3))(torch.zeros(4, 2)).shape
        torch.Size([4, 3])
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


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

    Args:
        x_width: D.
        y_width: E.
        hidden: widths of the hidden layers, at least one.

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

    Args:
        x_width: D.
        y_width: E.
        hidden: widths of the hidden layers of either network.
        embedding: width of the inner product.

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
