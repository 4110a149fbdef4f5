"""Stochastic gradient descent with momentum and a decaying step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lastlayer.linear_model import passes
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.rows import Block, LocalRows
from lastlayer.linear_model.solvers.progress import Progress


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
    r"""Minimise from theta; an iteration is an epoch and a look at the objective.

    The step of epoch t is the learning rate over :math:`\sqrt{1 + t}`.

    Args:
        problem: what to minimise; its rows must be local.
        theta: where to start.
        progress: stopping rule and history.
        max_iter: most epochs.
        batch_size: rows of a step.
        learning_rate: of the mean loss; ``"auto"`` is one over the mean squared norm of a row, half
            of what is safe without momentum, as the loss's second derivative is at most 1/2.
        momentum: in [0, 1).
        generator: shuffles the rows.

    Returns:
        The best theta.
    """
    if learning_rate == "auto":
        learning_rate = safe_rate(problem)
    velocity = torch.zeros_like(theta)
    here = problem.evaluate(theta)
    best, least = theta, here.value
    if progress.note(here):
        return theta
    for epoch in range(max_iter):
        rate = float(learning_rate) / math.sqrt(1 + epoch)
        theta, velocity = descend(
            problem, theta, velocity, rate, momentum, batch_size=batch_size, generator=generator
        )
        here = problem.evaluate(theta)
        if here.value < least:
            best, least = theta, here.value
        if progress.note(here):
            break
    return best


def safe_rate(problem: SoftmaxProblem) -> float:
    """Return one over the mean squared norm of a row, the intercept's 1 included."""
    return 1.0 / (float(problem.square_sums.sum()) / problem.total_weight + 1.0)


def descend(
    problem: SoftmaxProblem,
    theta: Tensor,
    velocity: Tensor,
    rate: float,
    momentum: float,
    *,
    batch_size: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one epoch of steps on the mean objective; return theta and velocity."""
    rows = problem.rows
    if not isinstance(rows, LocalRows):
        raise TypeError(
            "stochastic gradient descent draws batches, which needs rows read by this process, "
            f"without class_weight in fit_rows; got {type(rows).__name__}"
        )
    width = rows.num_features
    for batch in batches(rows, batch_size, generator):
        weights, bias = problem.split(theta)
        gradient, residual = passes.gradient(batch, weights, bias)
        count = float(len(batch.target) if batch.weight is None else batch.weight.sum())
        if count == 0:
            continue
        gradient = (gradient - torch.outer(problem.mean, residual)) / count
        gradient += problem.penalty.times(weights) / problem.total_weight
        velocity = momentum * velocity
        velocity[:width] -= rate * gradient
        if problem.fit_intercept:
            velocity[width] -= rate * residual / count
        theta = theta + velocity
    return theta, velocity


def batches(rows: LocalRows, size: int, generator: torch.Generator | None) -> Iterator[Block]:
    """Yield shuffled batches, blocks in random order and rows in random order within them."""
    for number in torch.randperm(len(rows.blocks), generator=generator).tolist():
        block = rows.blocks[number]
        order = torch.randperm(len(block.target), generator=generator).to(block.target.device)
        for index in torch.split(order, size):
            weight = None if block.weight is None else block.weight[index]
            yield Block(block.matrix.rows(index), block.target[index], weight)
