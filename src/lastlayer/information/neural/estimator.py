"""Neural estimators of information: what they share, and the classifiers among them."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._checks import check_choice, check_count, check_positive
from lastlayer._random import seeded
from lastlayer.functional.information import label_counts, pc_softmax_loss
from lastlayer.information.estimate import InformationEstimate, estimate_information

#: Called after every epoch with its number, the number of epochs and its mean objective in nats.
Progress = Callable[[int, int, float], object]

CLASSIFIERS = ("cross-entropy", "pc-softmax")


class Variable(NamedTuple):
    """How one of the two variables looks: real vectors, or one of so many symbols.

    Attributes:
        name: for messages.
        width: its dimension as the networks see it; the number of symbols if discrete.
        discrete: whether it consists of int64 symbols.
    """

    name: str
    width: int
    discrete: bool

    @classmethod
    def of(cls, name: str, values: Tensor) -> Variable:
        """Describe (N, D) floating-point values or (N,) int64 symbols, or raise ``ValueError``."""
        if values.dtype == torch.int64 and values.dim() == 1 and len(values):
            return cls(name, int(values.max()) + 1, discrete=True)
        if values.is_floating_point() and values.dim() == 2 and values.numel():
            return cls(name, values.shape[1], discrete=False)
        raise ValueError(
            f"{name} must be (N, D) floating point or (N,) int64 symbols; "
            f"got {values.dtype} of shape {tuple(values.shape)}"
        )

    def check(self, values: Tensor) -> None:
        """Raise ``ValueError`` unless ``values`` look as those that were fitted."""
        found = Variable.of(self.name, values)
        fits = found.width <= self.width if self.discrete else found.width == self.width
        if found.discrete != self.discrete or not fits:
            raise ValueError(f"{self.name} must be as it was fitted, {self}; got {found}")
        if self.discrete and int(values.min()) < 0:
            raise ValueError(f"{self.name} must hold symbols of at least 0; got {values.min()}")
        if not self.discrete and not bool(values.isfinite().all()):
            raise ValueError(f"{self.name} must be finite; got NaN or infinity")

    def encode(self, values: Tensor) -> Tensor:
        """Return (N, width) float32: the values, or one-hot vectors of the symbols."""
        if self.discrete:
            return F.one_hot(values, self.width).float()
        return values.float()


class NeuralEstimator(ABC):
    """An estimator of I(X; Y) that trains a small network on pairs.

    All of them share data layout, network size, optimizer (Adam, the rate falling to 0 along a
    cosine) and number of steps, so that they may be compared. Weights, shuffling and everything
    else that is drawn follow ``seed`` alone.

    Args:
        hidden: widths of the hidden layers, at least one.
        epochs: passes over the training pairs.
        batch_size: pairs in a step; what is left over at the end of an epoch is not used in it.
        learning_rate: largest rate of Adam.
        seed: fixes all that is drawn.

    Raises:
        ValueError: if an argument is out of range.
    """

    #: The estimate's ``kind``.
    kind: str

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (100, 100, 100),
        epochs: int = 20,
        batch_size: int = 2000,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        if not hidden:
            raise ValueError("hidden must name at least one layer; got none")
        for width in hidden:
            check_count("every width of hidden", width)
        check_count("epochs", epochs)
        check_count("batch_size", batch_size)
        check_positive("learning_rate", learning_rate)
        self.hidden = tuple(hidden)
        self.epochs, self.batch_size = int(epochs), int(batch_size)
        self.learning_rate, self.seed = learning_rate, seed
        self._variables: tuple[Variable, Variable] | None = None

    @abstractmethod
    def _build(self, x: Variable, y: Variable) -> nn.Module:
        """Return a new network; called with torch's generator seeded."""

    @abstractmethod
    def _prepare(self, y: Tensor) -> None:
        """Look at all training labels before the first step, and forget earlier training."""

    @abstractmethod
    def _objective(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return what is maximized on a batch of encoded x and raw y."""

    @abstractmethod
    def _estimate(self, x: Tensor, y: Tensor, held_out: bool) -> InformationEstimate:
        """Return the estimate from encoded x and raw y."""

    def fit(self, x: Tensor, y: Tensor, progress: Progress | None = None) -> Self:
        """Train on pairs.

        Args:
            x: (N, D) floating point, or (N,) int64 symbols.
            y: (N,) int64 symbols, or (N, E) floating point.
            progress: called after every epoch.

        Returns:
            The estimator itself.

        Raises:
            ValueError: if a shape or a dtype does not fit.
            RuntimeError: if the training diverges.
        """
        self._variables = (Variable.of("x", x), Variable.of("y", y))
        inputs = self._checked(x, y)
        with seeded(self.seed):
            network = self._build(*self._variables).to(inputs.device)
        self._prepare(y)
        self._train(network, inputs, y, progress)
        return self

    def _train(
        self, network: nn.Module, inputs: Tensor, y: Tensor, progress: Progress | None
    ) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        batch = min(int(self.batch_size), len(y))
        steps = len(y) // batch
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        all_steps = self.epochs * steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / all_steps, 1.0)))
        )
        for epoch in range(1, self.epochs + 1):
            total = 0.0
            order = torch.randperm(len(y), generator=generator)
            for rows in torch.split(order[: steps * batch], batch):
                objective = self._objective(inputs[rows], y[rows], generator)
                value = float(objective.detach())
                if not math.isfinite(value):
                    raise RuntimeError(
                        f"{self.kind} diverged in epoch {epoch} of {self.epochs}: its objective "
                        f"is {value}; try a lower learning_rate"
                    )
                optimizer.zero_grad()
                torch.autograd.backward(-objective)
                optimizer.step()
                schedule.step()
                total += value
            if progress is not None:
                progress(epoch, self.epochs, total / steps)

    @torch.no_grad()
    def estimate(self, x: Tensor, y: Tensor, *, held_out: bool = True) -> InformationEstimate:
        """Estimate I(X; Y) from pairs that were not trained on.

        Args:
            x: as in ``fit``.
            y: as in ``fit``.
            held_out: False warns: training pairs overestimate.

        Returns:
            The estimate.

        Raises:
            ValueError: if a shape or a dtype does not fit.
            RuntimeError: before ``fit``.
        """
        return self._estimate(self._checked(x, y), y, held_out)

    def _checked(self, x: Tensor, y: Tensor) -> Tensor:
        """Return encoded x, or raise."""
        if self._variables is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted first: call fit(x, y)")
        if len(x) != len(y):
            raise ValueError(f"x and y must be pairs; got {len(x)} and {len(y)} of them")
        for variable, values in zip(self._variables, (x, y), strict=True):
            variable.check(values)
        return self._variables[0].encode(x)


class ClassifierEstimator(NeuralEstimator):
    r"""A classifier, read as :math:`H(Y) - \mathrm{CE}` or as :math:`\mathrm E \log \mathrm{PC}_y`.

    Args:
        kind: ``"cross-entropy"`` or ``"pc-softmax"``: the loss, and how the logits are read.
        **options: see :class:`NeuralEstimator`.

    Raises:
        ValueError: if an argument is out of range; when fitted, if y is not discrete.

    Example:
        >>> y = torch.arange(200) % 2
        >>> x = y.float().unsqueeze(-1)
        >>> estimator = ClassifierEstimator("pc-softmax", hidden=(8,), epochs=50, batch_size=50,
        ...                                 learning_rate=0.05).fit(x, y)
        >>> round(estimator.estimate(x[:10], y[:10]).value, 2)
        0.69
    """

    def __init__(self, kind: str = "cross-entropy", **options: Any) -> None:
        check_choice("kind", kind, CLASSIFIERS)
        super().__init__(**options)
        self.kind = kind

    def _build(self, x: Variable, y: Variable) -> nn.Module:
        if not y.discrete:
            raise ValueError(f"y must be (N,) int64 labels for a classifier; got {y}")
        self.network = mlp((x.width, *self.hidden, y.width))
        self._num_classes = y.width
        return self.network

    def _prepare(self, y: Tensor) -> None:
        self._prior = label_counts(y, self._num_classes) / len(y)

    def _objective(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        logits = self.network(x)
        if self.kind == "pc-softmax":
            return -pc_softmax_loss(logits, y, self._prior)
        return -F.cross_entropy(logits, y)

    def _estimate(self, x: Tensor, y: Tensor, held_out: bool) -> InformationEstimate:
        return estimate_information(self.network(x), y, kind=self.kind, held_out=held_out)


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Return fully connected layers with ReLU in between, (N, sizes[0]) to (N, sizes[-1]).

    Example:
        >>> mlp((2, 8, 3))(torch.zeros(4, 2)).shape
        torch.Size([4, 3])
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
