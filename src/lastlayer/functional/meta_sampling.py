"""Batches drawn class by class at rates that a gradient reaches, and weights that do the same."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import (
    can_look,
    check_at_least,
    check_class_indices,
    check_count,
    check_generator,
    check_positive,
)
from lastlayer.functional.class_priors.counts import as_class_counts, log_class_counts
from lastlayer.functional.numerics import at_least_float32, drawn_by


class RelaxedDraw(NamedTuple):
    """The classes of a batch, and ones through which a gradient reaches the rates.

    Attributes:
        classes: (B,) int64, the class of every example to draw.
        weights: (B,) exactly 1; to be multiplied with the examples' losses.
    """

    classes: Tensor
    weights: Tensor


class ExamplesByClass(NamedTuple):
    """Examples sorted by class.

    Attributes:
        order: (N,) int64 positions of the examples, class after class.
        starts: (K,) int64, where in ``order`` every class begins.
        counts: (K,) int64, examples of every class.
    """

    order: Tensor
    starts: Tensor
    counts: Tensor


def initial_rate_logits(class_counts: Tensor, power: float = 0.0) -> Tensor:
    r"""Return rates by a power of the class frequencies, as logits.

    .. math:: \sigma(\psi_j) = \frac{r_j}{\min_k r_k + \max_k r_k}, \qquad r_j = n_j^{-p}

    With p = 0 every rate is 1/2, which draws every example equally often; with p = 1 the rates draw
    every class equally often.

    Args:
        class_counts: (K,) examples of every class, above 0.
        power: p, at least 0.

    Returns:
        (K,) logits :math:`\psi`, float64.

    Raises:
        ValueError: if a count is not above 0 or ``power`` below 0.

    Example:
        >>> initial_rate_logits(torch.tensor([99, 1]), power=1.0).sigmoid()
        tensor([0.0100, 0.9900], dtype=torch.float64)

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020;
    the power from the authors' program.
    """
    check_at_least("power", power, 0.0)
    counts = as_class_counts(class_counts, offers_mask=False).double()
    rates = (counts / counts.min()).pow(-power)  # the largest is 1
    return rates.log() - (rates.min() + (1.0 - rates)).log()


def class_log_prob(rate_logits: Tensor, class_counts: Tensor) -> Tensor:
    r"""Return with which probability an example of each class is drawn.

    .. math:: p_c = \frac{n_c \, \sigma(\psi_c)}{\sum_k n_k \, \sigma(\psi_k)}

    Args:
        rate_logits: (K,) logits :math:`\psi` of the rates; half precision is computed in float32.
        class_counts: (K,) examples of every class, above 0.

    Returns:
        (K,) :math:`\log p`, differentiable with respect to ``rate_logits``.

    Example:
        >>> class_log_prob(torch.tensor([0.0, 0.0]), torch.tensor([3, 1])).exp()
        tensor([0.7500, 0.2500])
    """
    rate_logits = at_least_float32(rate_logits)
    counts = as_class_counts(class_counts, len(rate_logits), offers_mask=False)
    log_counts = log_class_counts(counts, rate_logits)
    return F.log_softmax(F.logsigmoid(rate_logits) + log_counts, dim=-1)


def draw_classes(
    rate_logits: Tensor,
    class_counts: Tensor,
    num_draws: int,
    *,
    temperature: float = 1.0,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> RelaxedDraw:
    r"""Draw the classes of a batch, independently and with replacement, at the classes' rates.

    .. math:: c_i = \arg\max_k (\log p_k + g_{ik}), \qquad
        y_i = \mathrm{softmax}\bigl((\log p + g_i) / \tau\bigr), \qquad
        w_i = 1 + y_{i c_i} - \mathrm{sg}(y_{i c_i})

    with the p of :func:`class_log_prob`, Gumbel noise g, and sg for "no gradient": the weight is
    exactly 1, its derivative that of the relaxed pick (straight-through Gumbel-softmax). Followed
    by a uniform draw within the class this draws examples as the published draw over all N of them
    does, at B K numbers instead of B N.

    Args:
        rate_logits: (K,) logits :math:`\psi` of the rates.
        class_counts: (K,) examples of every class, above 0.
        num_draws: B.
        temperature: :math:`\tau > 0`; it changes the derivative, not the draws.
        noise: (B, K) standard Gumbel numbers to use instead of drawing.
        generator: source of the noise, on the device of ``rate_logits``; None for torch's default.

    Returns:
        Classes and weights, (B,) each.

    Raises:
        ValueError: if an argument is out of range or a shape does not fit.

    Example:
        >>> noise = torch.tensor([[0.0, 0.5], [0.0, 2.0]])
        >>> draw = draw_classes(torch.zeros(2), torch.tensor([3, 1]), 2, noise=noise)
        >>> draw.classes.tolist(), draw.weights.tolist()
        ([0, 1], [1.0, 1.0])

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
    """
    check_count("num_draws", num_draws)
    check_positive("temperature", temperature)
    log_prob = class_log_prob(rate_logits, class_counts)
    shape = (num_draws, len(log_prob))
    if noise is None:
        noise = gumbel_noise(log_prob.new_empty(shape), generator=generator)
    elif noise.shape != shape:
        raise ValueError(f"noise must have shape {shape}; got {tuple(noise.shape)}")
    score = log_prob + noise
    classes = score.argmax(dim=-1)
    picked = (score / temperature).softmax(dim=-1).gather(-1, classes.unsqueeze(-1)).squeeze(-1)
    return RelaxedDraw(classes, picked - picked.detach() + 1.0)


def gumbel_noise(like: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw standard Gumbel noise :math:`-\log E` with :math:`E \sim \mathrm{Exp}(1)`.

    Args:
        like: tensor whose shape, dtype (float32 for half precision) and device the noise takes.
        generator: source of randomness; the default generator of the device if None.

    Returns:
        Finite noise of the shape of ``like``.

    Example:
        >>> gumbel_noise(torch.empty(2, 3), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    check_generator(generator)
    exponential = torch.empty_like(at_least_float32(like), requires_grad=False)
    exponential.exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(exponential.dtype).tiny).log()


def group_by_class(target: Tensor, num_classes: int) -> ExamplesByClass:
    """Sort examples by class, those of one class in their own order.

    Args:
        target: (N,) int64 labels in [0, K).
        num_classes: K.

    Returns:
        The examples' positions by class.

    Raises:
        TypeError: if ``target`` is not int64.
        ValueError: if a label is out of range.

    Example:
        >>> group_by_class(torch.tensor([1, 0, 1]), 2).order.tolist()
        [1, 0, 2]
    """
    check_class_indices(target, num_classes)
    counts = torch.bincount(target, minlength=num_classes)
    return ExamplesByClass(target.argsort(stable=True), counts.cumsum(0) - counts, counts)


def draw_examples(
    groups: ExamplesByClass,
    classes: Tensor,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one example of each given class, uniformly within the class, with replacement.

    Args:
        groups: what :func:`group_by_class` returns.
        classes: (B,) int64 classes that have an example.
        noise: (B,) uniform numbers in [0, 1) to use instead of drawing.
        generator: source of the noise, on the device of ``classes``; None for torch's default.

    Returns:
        (B,) int64 positions of the examples.

    Raises:
        ValueError: if a class has no example, or the noise another shape.

    Example:
        >>> groups = group_by_class(torch.tensor([1, 0, 1]), 2)
        >>> draw_examples(groups, torch.tensor([1, 1, 0]), noise=torch.tensor([0.1, 0.9, 0.9]))
        tensor([0, 2, 1])
    """
    if noise is None:
        # Of single precision's numbers a large class would see only every so many examples.
        noise = torch.rand(
            classes.shape, dtype=torch.float64, device=classes.device, **drawn_by(generator)
        )
    elif noise.shape != classes.shape:
        raise ValueError(f"noise must have shape {tuple(classes.shape)}; got {tuple(noise.shape)}")
    counts = groups.counts[classes]
    if can_look(classes) and bool((counts == 0).any()):
        empty = int(classes[counts == 0][0])
        raise ValueError(f"classes must have an example each; class {empty} has none")
    within = (noise.double() * counts).long().minimum(counts - 1)
    return groups.order[groups.starts[classes] + within]


def rate_weights(rate_logits: Tensor, target: Tensor, *, normalize: bool = True) -> Tensor:
    r"""Weigh every example by its class's rate: the Meta Reweighter in place of sampling.

    .. math:: w_i = \sigma(\psi_{y_i}), \qquad \text{normalized:} \quad
        w_i = B \frac{\sigma(\psi_{y_i})}{\sum_j \sigma(\psi_{y_j})}

    Args:
        rate_logits: (K,) logits :math:`\psi` of the rates.
        target: (B,) int64 labels in [0, K).
        normalize: whether the weights have sum B.

    Returns:
        (B,) weights, differentiable with respect to ``rate_logits``.

    Raises:
        TypeError: if labels are not int64.
        ValueError: if one is out of range.

    Example:
        >>> rate_weights(torch.tensor([0.0, 200.0]), torch.tensor([0, 1, 1]))
        tensor([0.6000, 1.2000, 1.2000])

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020;
    the sum from the authors' program.
    """
    check_class_indices(target, len(rate_logits))
    log_rates = F.logsigmoid(at_least_float32(rate_logits))[target]
    return log_rates.softmax(dim=-1) * len(target) if normalize else log_rates.exp()
