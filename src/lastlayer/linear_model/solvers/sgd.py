"""Stochastic gradient descent with momentum, averages of its tail, and steps cut when they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.problem import Evaluation, SoftmaxProblem
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Block
from lastlayer.linear_model.solvers.progress import Progress
from lastlayer.linear_model.solvers.step_size import row_scale

#: The t-th of T epochs at one step weighs about (t / T) to this power in their average.
TAIL_POWER = 3
#: What steps that bring nothing are multiplied by.
CUT = 0.5


def solve_sgd(
    problem: SoftmaxProblem,
    theta: Tensor,
    progress: Progress,
    *,
    max_iter: int,
    batch_size: int = 256,
    learning_rate: float | str = "auto",
    momentum: float = 0.9,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Minimize from theta; return the best theta. An iteration is an epoch and a look at F.

    What is looked at is an average over the epochs, of which the last weigh most: noise averages
    out at steps that still get somewhere. Where the average no longer falls, steps of half the size
    follow from the best one, with a new average, and with one epoch more to come below the best
    before the next halving: fewer would not tell noise from standing still. Steps so large that the
    objective is above that at the start are halved at once.

    ``learning_rate`` is the first step, of the mean loss; ``"auto"`` is as large as the rows allow,
    see ``step_size``, and follows the loss's curvature.
    """
    start = best = problem.evaluate(theta)
    if progress.note(start):
        return theta
    step_of = _steps(problem, learning_rate, batch_size, momentum)
    least, velocity, tail, cuts = theta, torch.zeros_like(theta), TailAverage(), 0
    for _ in range(max_iter):
        theta, velocity, mean = descend(
            problem,
            theta,
            velocity,
            CUT**cuts * step_of(best),
            momentum,
            batch_size=batch_size,
            generator=generator,
        )
        tail.add(mean)
        here = problem.evaluate(tail.value)
        done = _note(progress, here, learning_rate)
        if here.value < best.value:
            best, least = here, tail.value
        elif tail.count > cuts or here.value > start.value:
            cuts += 1
            theta, velocity, tail = least, torch.zeros_like(theta), TailAverage()
        if done:
            break
    return least


class TailAverage:
    """Average of ``count`` points, of which the later ones weigh more."""

    def __init__(self) -> None:
        self.count = 0
        self.value = torch.empty(0)

    def add(self, point: Tensor) -> None:
        """Take a point in."""
        self.count += 1
        share = (1 + TAIL_POWER) / (self.count + TAIL_POWER)
        self.value = point if self.count == 1 else torch.lerp(self.value, point, share)


def _steps(
    problem: SoftmaxProblem, learning_rate: float | str, batch_size: int, momentum: float
) -> Callable[[Evaluation], Tensor]:
    """Return the steps, a column beside theta, as a function of where it is."""
    rows = _local(problem)
    width = rows.num_features
    column = problem.mean.new_empty((width + problem.fit_intercept, 1))
    if learning_rate != "auto":
        return lambda here: column.fill_(float(learning_rate))
    scale, size = row_scale(problem, rows), min(batch_size, rows.block_rows)
    share = (1 - size / problem.num_rows) / size

    def follow(here: Evaluation) -> Tensor:
        weights, intercept = scale.rates(here.curvature, share, momentum)
        column[:width], column[width:] = weights, intercept
        return column

    return follow


def _note(progress: Progress, here: Evaluation, learning_rate: float | str) -> bool:
    try:
        return progress.note(here)
    except FloatingPointError as error:
        if learning_rate == "auto":
            raise
        raise FloatingPointError(
            f"learning_rate={learning_rate} is too large, take a smaller one or 'auto': {error}"
        ) from None


def safe_rate(problem: SoftmaxProblem) -> float:
    """Return one over the mean squared norm of a row, the intercept's 1 included.

    Half of what is safe for steps of one row, as the loss's second derivative is at most 1/2: for a
    stream, whose rows to come are unknown and whose objective nobody looks at.
    """
    return 1.0 / (float(problem.square_sums.sum()) / problem.total_weight + 1.0)


class Epoch(NamedTuple):
    """Where an epoch ended: the last iterate, the last step, the mean of the iterates."""

    theta: Tensor
    velocity: Tensor
    mean: Tensor


def descend(
    problem: SoftmaxProblem,
    theta: Tensor,
    velocity: Tensor,
    step: float | Tensor,
    momentum: float,
    *,
    batch_size: int,
    generator: torch.Generator | None = None,
) -> Epoch:
    """Take one epoch of steps on the mean objective.

    A batch's gradient is summed, not averaged by its own weight, and a smaller batch makes a
    smaller step: so the gradients of an epoch sum up to that of all rows. ``step`` is the learning
    rate, of the mean loss, or a column of one for each row of theta.
    """
    rows = _local(problem)
    size = min(batch_size, rows.block_rows)
    weight = float(problem.class_weight.sum()) * size / problem.num_rows
    total, count = torch.zeros_like(theta), 0
    for batch in batches(rows, batch_size, generator):
        weights, bias = problem.split(theta)
        gradient, residual = block_reductions.gradient(batch, weights, bias)
        gradient = (gradient - torch.outer(problem.mean, residual)) / weight
        share = len(batch.target) / (size * problem.total_weight)
        gradient += share * problem.penalty.times(weights)
        change = problem.with_intercept(gradient, residual / weight)
        velocity = momentum * velocity - step * change
        theta = theta + velocity
        total += theta
        count += 1
    return Epoch(theta, velocity, total / count)


def _local(problem: SoftmaxProblem) -> LocalRows:
    if not isinstance(problem.rows, LocalRows):
        raise TypeError(
            "stochastic gradient descent draws batches, which needs rows read by this process, "
            f"without class_weight in fit_rows; got {type(problem.rows).__name__}"
        )
    return problem.rows


def batches(rows: LocalRows, size: int, generator: torch.Generator | None) -> Iterator[Block]:
    """Yield shuffled batches, blocks in random order and rows in random order within them."""
    for number in torch.randperm(len(rows.blocks), generator=generator).tolist():
        block = rows.blocks[number]
        order = torch.randperm(len(block.target), generator=generator).to(block.target.device)
        for index in torch.split(order, size):
            weight = None if block.weight is None else block.weight[index]
            yield Block(block.matrix.rows(index), block.target[index], weight)
