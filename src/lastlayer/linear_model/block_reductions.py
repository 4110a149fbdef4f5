"""What the solvers compute in one pass over the rows: steps for ``Rows.reduce``."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.linear_model.rows.protocol import Block


def weight_by_class(block: Block, num_classes: int) -> tuple[Tensor, ...]:
    """Sum the weights by class, (K,)."""
    weight = _weight(block)
    return (weight.new_zeros(num_classes).index_add_(0, block.target, weight),)


def totals(block: Block, num_classes: int) -> tuple[Tensor, ...]:
    """Sum weights by class, (K,), features by class, (d, K), squared features, (d,), and rows."""
    weight = _weight(block)
    (by_class,) = weight_by_class(block, num_classes)
    one_hot = weight.new_zeros((len(weight), num_classes))
    one_hot.scatter_(1, block.target.unsqueeze(1), weight.unsqueeze(1))
    features = block.matrix.transposed_times(one_hot)
    count = torch.tensor(len(weight), dtype=torch.float64, device=weight.device)
    return by_class, features, block.matrix.square_sums(block.weight), count


def gram(block: Block, every: int = 1) -> tuple[Tensor, ...]:
    """Sum s a a', s a and s over the rows, or over every so many of them."""
    matrix, weight = block.matrix, _weight(block)
    own = block.weight
    if every > 1:
        index = torch.arange(0, len(weight), every, device=weight.device)
        matrix, weight = matrix.rows(index), weight[index]
        own = None if own is None else weight
    return matrix.gram(own), matrix.transposed_times(weight.unsqueeze(1)), weight.sum()


def gram_times(block: Block, weights: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """Sum s a (a'W + b) and s (a'W + b) over the rows."""
    return weighted_sums(block, block.matrix.times(weights).add_(bias))


def weighted_sums(block: Block, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return A'SV and 1'SV of values V, (n, K), which are overwritten."""
    if block.weight is not None:
        values.mul_(block.weight.unsqueeze(1))
    return block.matrix.transposed_times(values), values.sum(0)


def evaluate(block: Block, weights: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, ...]:
    """Sum loss, entropy, curvatures, gradient in the weights and residual.

    The residual is p - e_y, times the row's weight. The curvatures of a row are 1 - |p|^2, the
    trace of its Hessian, and |p - e_y|^2. ``keep`` leaves the probabilities with the rows, for
    products with the Hessian.
    """
    log_probability = torch.log_softmax(block.matrix.times(weights).add_(bias), dim=1)
    probability = log_probability.exp()
    if keep:
        block.state["probability"] = probability.clone()
    if block.weight is None:
        entropy = -_inner(probability, log_probability)
    else:
        # p log p is 0 where p has underflown, whatever log p is.
        entropy = -_inner(block.weight, (probability * log_probability).sum(1))
    loss, curvature = _loss_and_curvatures(block, _of_labels(block, log_probability), probability)
    return loss, entropy, curvature, *weighted_sums(block, add_to_labels(block, probability, -1))


def gradient(block: Block, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the gradient in the weights and the residual alone."""
    probability = torch.softmax(block.matrix.times(weights).add_(bias), dim=1)
    return weighted_sums(block, add_to_labels(block, probability, -1))


def loss_and_curvature(block: Block, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss and the summed curvatures at logits."""
    log_probability = torch.log_softmax(logits, dim=1)
    return _loss_and_curvatures(block, _of_labels(block, log_probability), log_probability.exp_())


def _loss_and_curvatures(
    block: Block, picked: Tensor, probability: Tensor
) -> tuple[Tensor, Tensor]:
    """Return summed loss, and summed 1 - |p|^2 and |p - e_y|^2, of the labels' log p and all p."""
    missed = 1 - picked.exp()
    if block.weight is None:
        loss, squares = -_total(picked), _inner(probability, probability)
        weight = torch.ones_like(missed)
    else:
        weight = block.weight
        loss, squares = -_inner(weight, picked), _inner(weight, probability.square().sum(1))
    spread = _total(weight) - squares
    return loss, torch.stack([spread, 2 * _inner(weight, missed) - spread])


def add_to_labels(block: Block, values: Tensor, number: float) -> Tensor:
    """Add a number to the labels' entries of (n, K) values, in place."""
    column = block.target.unsqueeze(1)
    return values.scatter_add_(1, column, values.new_full((), number).expand(column.shape))


def _of_labels(block: Block, values: Tensor) -> Tensor:
    return values.gather(1, block.target.unsqueeze(1)).squeeze(1)


def count_errors(block: Block, weights: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """Count the rows whose label has not the largest logit alone."""
    logits = block.matrix.times(weights).add_(bias)
    column = block.target.unsqueeze(1)
    picked = logits.gather(1, column)
    rivals = logits.scatter(1, column, -torch.inf).amax(1, keepdim=True)
    return ((picked <= rivals).sum(),)


def prediction_sums(block: Block, weights: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """Sum rows, losses, squared losses and rows that are right, each row counting once."""
    log_probability = torch.log_softmax(block.matrix.times(weights).add_(bias), dim=1).double()
    loss = -_of_labels(block, log_probability)
    right = (log_probability.argmax(1) == block.target).sum()
    count = torch.tensor(len(loss), dtype=torch.float64, device=loss.device)
    return count, loss.sum(), loss.square().sum(), right.double()


def squares(values: Tensor) -> Tensor:
    """Return the sum of squares, in float64."""
    return _inner(values, values)


def hessian_times(block: Block, weights: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """Sum the Hessian's product with a direction, of the kept probabilities."""
    probability = block.state["probability"]
    along = block.matrix.times(weights).add_(bias).mul_(probability)
    return weighted_sums(block, along.addcmul_(probability, along.sum(1, keepdim=True), value=-1))


def _weight(block: Block) -> Tensor:
    if block.weight is not None:
        return block.weight
    matrix = block.matrix
    return torch.ones(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)


def _total(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.float64)


def _inner(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner product, in float64 whatever the rows are in."""
    return torch.dot(first.reshape(-1), second.reshape(-1)).to(torch.float64)
