r"""Lower bounds on I(X; Y) from a critic: any function f(x, y) that scores how well they fit.

The scores come in one of two layouts. With a ``target`` they are (N, K), the scores of every
example against every label (a classifier's logits), and :math:`\mathrm{E}_{p(y)}` is the exact sum
over labels. Without one they are a square matrix (N, N) of every x against every y of a sample of
pairs: the diagonal is the joint, the rest the product of the margins. Of one and the same critic,

.. math:: \mathrm{NWJ} \le \mathrm{DV} \le \mathrm{BA} \le I(X; Y).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_floating, check_inside, check_last_dim, check_prior
from lastlayer.functional.information.entropy import label_counts
from lastlayer.functional.information.label_bounds import (
    BoundEstimate,
    check_scores,
    check_target_prior,
    standard_error,
)
from lastlayer.functional.numerics import at_least_float32


class _Critic(NamedTuple):
    """Scores of the pairs, and of every example against weighted labels.

    Attributes:
        joint: (N,) f(x_i, y_i).
        weighted: (N, M) f(x_i, y) + log weight of y; -inf where a pair takes no part.
        column: (N,) the column that example i adds to the weights, None for known weights.
        column_weight: (N,) its weight times N.
    """

    joint: Tensor
    weighted: Tensor
    column: Tensor | None
    column_weight: Tensor | None

    def log_partition(self) -> Tensor:
        r"""(N,) values of :math:`\log \mathrm{E}_y e^{f(x_i, y)}`."""
        return torch.logsumexp(self.weighted, dim=-1)

    def column_influence(self, log_share: Tensor) -> Tensor:
        """Return what example i adds to mean exp(``log_share``) through the weights, (N,).

        ``log_share`` (N, M) is ``weighted`` up to factors that do not depend on the column.
        """
        if self.column is None or self.column_weight is None:
            return log_share.new_zeros(len(self.joint))
        total = log_share.detach().exp().sum(dim=0)
        return total[self.column] / self.column_weight


def donsker_varadhan_bound(
    scores: Tensor, target: Tensor | None = None, *, prior: Tensor | None = None
) -> BoundEstimate:
    r"""Donsker's and Varadhan's bound.

    .. math:: \mathrm{DV}(f) = \mathrm{E}\, f(x, y)
        - \log \mathrm{E}_{p(x) p(y)}\, e^{f(x, y)} \le I(X; Y)

    From a sample the logarithm of a mean is too low on average, so that the value of few examples
    may exceed the mutual information: without labels it can even pass log N.

    Args:
        scores: (N, K) critic values of every label, or (N, N) of all pairs, N >= 2.
        target: (N,) int64 labels in [0, K); None for a matrix of pairs.
        prior: (K,) known label probabilities; the frequencies of ``target`` if None.

    Returns:
        :class:`BoundEstimate`; its error is that of the linearized estimate.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a label does not fit.

    Example:
        >>> donsker_varadhan_bound(torch.tensor([[2.0, 0.0], [0.0, 2.0]])).value
        tensor(2.)
        >>> scores, target = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
        >>> donsker_varadhan_bound(scores, target).value
        tensor(0.5662)

    Source: Belghazi et al., "Mutual Information Neural Estimation", ICML 2018 (the bound).
    """
    critic = _critic(scores, target, prior, diagonal=False)
    row = critic.log_partition()
    log_mean = torch.logsumexp(row, dim=0) - math.log(len(row))
    tilt = (row - log_mean).detach().exp()
    influence = critic.joint - tilt - critic.column_influence(critic.weighted - log_mean)
    return BoundEstimate(critic.joint.mean() - log_mean, standard_error(influence))


def nwj_bound(
    scores: Tensor, target: Tensor | None = None, *, prior: Tensor | None = None
) -> BoundEstimate:
    r"""The bound of Nguyen, Wainwright and Jordan.

    .. math:: \mathrm{NWJ}(f) = \mathrm{E}\, f(x, y)
        - e^{-1} \mathrm{E}_{p(x) p(y)}\, e^{f(x, y)} \le \mathrm{DV}(f)

    Unbiased from a sample, with a variance that grows exponentially with the scores: large ones
    overflow to -inf, which is returned as it is.

    Args:
        scores: (N, K) critic values of every label, or (N, N) of all pairs, N >= 2.
        target: (N,) int64 labels in [0, K); None for a matrix of pairs.
        prior: (K,) known label probabilities; the frequencies of ``target`` if None.

    Returns:
        :class:`BoundEstimate`.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a label does not fit.

    Example:
        >>> nwj_bound(torch.tensor([[1.0, 1.0], [1.0, 1.0]])).value
        tensor(0.)

    Source: Nguyen, Wainwright and Jordan, "Estimating Divergence Functionals and the Likelihood
    Ratio by Convex Risk Minimization", IEEE Trans. Inf. Theory 2010.
    """
    critic = _critic(scores, target, prior, diagonal=False)
    row = (critic.log_partition() - 1.0).exp()
    influence = critic.joint - row - critic.column_influence(critic.weighted - 1.0)
    return BoundEstimate(critic.joint.mean() - row.mean(), standard_error(influence))


def barber_agakov_bound(
    scores: Tensor, target: Tensor, *, prior: Tensor | None = None
) -> BoundEstimate:
    r"""Barber's and Agakov's bound with the labels summed exactly: the mean log PC-softmax.

    .. math:: \mathrm{BA}(f) = \mathrm{E}\Big[ f(x, y) - \log \sum_j \pi_j e^{f(x, j)} \Big]
        = \mathrm{E} \log \mathrm{PC}_y = \sup_c \mathrm{DV}(f + c(x)) \le I(X; Y)

    The tightest of the three bounds of one critic, and the only one that a constant added to a row
    does not change. For logits trained by :func:`pc_softmax_loss` it is minus the loss.

    Args:
        scores: (N, K) logits, or critic values of every label.
        target: (N,) int64 labels in [0, K).
        prior: (K,) known label probabilities; the frequencies of ``target`` if None.

    Returns:
        :class:`BoundEstimate`.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a label does not fit.

    Example:
        >>> scores, target = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
        >>> barber_agakov_bound(scores, target, prior=torch.tensor([0.5, 0.5])).value
        tensor(0.5662)

    Source: Barber and Agakov, "The IM Algorithm", NIPS 2003; Qin, Kim and Gedeon, "Rethinking
    softmax with cross-entropy", arXiv 1911.10688.
    """
    return _conditional(_critic(scores, target, prior, diagonal=True))


def info_nce_bound(scores: Tensor, target: Tensor | None = None) -> BoundEstimate:
    r"""InfoNCE: every example tells its own label from those of the batch.

    .. math:: \mathrm{NCE}(f) = \frac1B \sum_i \Big[ f(x_i, y_i)
        - \log \frac1B \sum_j e^{f(x_i, y_j)} \Big] \le \log B

    With labels it is :func:`barber_agakov_bound` under the frequencies of the batch: what the
    batch replaces is the exact sum over labels.

    Args:
        scores: (B, K) critic values of every label, or (B, B) of all pairs; the rows are one batch.
        target: (B,) int64 labels in [0, K); None for a matrix of pairs.

    Returns:
        :class:`BoundEstimate`.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a label does not fit.

    Example:
        >>> info_nce_bound(torch.tensor([[2.0, 0.0], [0.0, 2.0]])).value
        tensor(0.5662)

    Source: van den Oord, Li and Vinyals, "Representation Learning with Contrastive Predictive
    Coding", arXiv 1807.03748.
    """
    return _conditional(_critic(scores, target, None, diagonal=True))


def _conditional(critic: _Critic) -> BoundEstimate:
    row = critic.log_partition()
    terms = critic.joint - row
    influence = terms - critic.column_influence(critic.weighted - row.unsqueeze(-1))
    return BoundEstimate(terms.mean(), standard_error(influence))


def _critic(
    scores: Tensor, target: Tensor | None, prior: Tensor | None, *, diagonal: bool
) -> _Critic:
    if target is None:
        if prior is not None:
            raise ValueError("prior belongs to labels; got one without target")
        return _pair_critic(scores, diagonal=diagonal)
    check_scores(scores, target)
    values, n = at_least_float32(scores), len(target)
    joint = values.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    if prior is not None:
        check_prior("prior", prior, scores.shape[1])
        check_target_prior(target, prior)
        return _Critic(joint, values + prior.to(values).log(), None, None)
    counts = label_counts(target, scores.shape[1]).to(values)
    return _Critic(joint, values + (counts / n).log(), target, counts[target])


def _pair_critic(scores: Tensor, *, diagonal: bool) -> _Critic:
    check_floating("scores", scores)
    smallest = 1 if diagonal else 2
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1] or len(scores) < smallest:
        raise ValueError(
            f"scores without target must be a square matrix of at least {smallest} pairs; "
            f"got shape {tuple(scores.shape)}"
        )
    values, n = at_least_float32(scores), len(scores)
    weighted = values - math.log(n if diagonal else n - 1)
    if not diagonal:
        own = torch.eye(n, dtype=torch.bool, device=values.device)
        weighted = weighted.masked_fill(own, -torch.inf)
    column = torch.arange(n, device=values.device)
    return _Critic(values.diagonal(), weighted, column, torch.ones_like(values.diagonal()))


class MineStep(NamedTuple):
    r"""One step of MINE.

    Attributes:
        objective: scalar to maximize; only its gradient has a meaning.
        log_average: scalar, log of the moving average of :math:`e^f`, for the next step.
    """

    objective: Tensor
    log_average: Tensor


def mine_objective(
    joint: Tensor, marginal: Tensor, log_average: Tensor | None = None, *, rate: float = 0.01
) -> MineStep:
    r"""Donsker's and Varadhan's bound of a batch with the corrected gradient.

    .. math:: \nabla = \nabla \frac1B \sum_i f(x_i, y_i)
        - \frac{\nabla \frac1B \sum_i e^{f(x_i, y'_i)}}{a_t}, \qquad
        a_t = (1 - \eta) a_{t-1} + \eta\, \tfrac1B \sum_i e^{f(x_i, y'_i)}

    The gradient of a batch's own logarithm divides by the batch's mean and is biased; the moving
    average reduces that. Everything stays in the log domain.

    Args:
        joint: (B,) scores of the pairs.
        marginal: (B,) scores of shuffled pairs.
        log_average: log of the moving average so far; None before the first step.
        rate: :math:`\eta` in (0, 1].

    Returns:
        :class:`MineStep`.

    Raises:
        ValueError: if a shape or ``rate`` does not fit.

    Example:
        >>> step = mine_objective(torch.zeros(4), torch.zeros(4))
        >>> step.objective, step.log_average
        (tensor(-1.), tensor(0.))

    Source: Belghazi et al., "Mutual Information Neural Estimation", ICML 2018, section 3.2.
    """
    if rate != 1.0:
        check_inside("rate", rate, 0.0, 1.0)
    if joint.dim() != 1:
        raise ValueError(f"joint must have shape (B,); got {tuple(joint.shape)}")
    check_last_dim("marginal", marginal, len(joint))
    joint, marginal = at_least_float32(joint), at_least_float32(marginal)
    log_mean = torch.logsumexp(marginal, dim=-1) - math.log(len(joint))
    updated = log_mean.detach()
    if log_average is not None and rate < 1.0:
        updated = torch.logaddexp(log_average + math.log1p(-rate), updated + math.log(rate))
    return MineStep(joint.mean() - (log_mean - updated).exp(), updated)
