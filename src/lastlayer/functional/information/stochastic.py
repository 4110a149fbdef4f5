"""Information brackets of a stochastic network: one network per draw, or all of them together."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_floating, check_prior
from lastlayer.functional.information.label_bounds import check_target_prior
from lastlayer.functional.numerics import at_least_float32

AVERAGES = ("probabilities", "logits")


class InformationBracket(NamedTuple):
    """Pointwise information of every example's label, in nats, (N,) each.

    Attributes:
        lower: mean over draws of the log-probability, less the log prior. Its mean over examples
            is at most I(Z; Y), the information that one draw Z carries.
        upper: the same of the averaged network, never below ``lower``. Its mean over examples is
            at most I(X; Y), but may exceed I(Z; Y).
    """

    lower: Tensor
    upper: Tensor


def information_bracket(
    logits: Tensor, target: Tensor, prior: Tensor, *, average: str = "probabilities"
) -> InformationBracket:
    r"""Bracket the label's pointwise information between single draws and their average.

    .. math:: \mathrm{E}_z \log q_y(z) - \log \pi_y \;\le\;
        \begin{cases}
            \log \mathrm{E}_z\, q_y(z) - \log \pi_y & \text{average = probabilities} \\
            \log \mathrm{softmax}_y(\mathrm{E}_z z) - \log \pi_y & \text{average = logits}
        \end{cases}

    Both follow from Jensen's inequality and hold for the drawn samples exactly. The expectation of
    the upper end of probabilities does not fall with the number of draws S; at S = 1 the ends meet.
    Of the two upper ends either may be the larger.

    Args:
        logits: (S, N, K) logits, or log-probabilities, of S >= 1 independent draws.
        target: (N,) int64 class indices in [0, K).
        prior: (K,) class probabilities, above 0 for every label that occurs.
        average: what the upper end averages over draws, ``"probabilities"`` or ``"logits"``.

    Returns:
        :class:`InformationBracket`.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a label, the prior or the option does not fit.

    Example:
        >>> log_prob = torch.tensor([[[0.9, 0.1]], [[0.4, 0.6]]]).log()
        >>> bracket = information_bracket(log_prob, torch.tensor([0]), torch.tensor([0.5, 0.5]))
        >>> bracket.lower, bracket.upper
        (tensor([0.1823]), tensor([0.2624]))

    Source: Qin and Kim, "Softmax is not an artificial trick", arXiv 1910.02629 (the setting);
    derived here.
    """
    check_choice("average", average, AVERAGES)
    check_floating("logits", logits)
    if logits.dim() != 3 or logits.numel() == 0:
        raise ValueError(
            f"logits must have shape (S, N, K), none of them 0; got {tuple(logits.shape)}"
        )
    if target.shape != logits.shape[1:2]:
        raise ValueError(f"target must have shape ({logits.shape[1]},); got {tuple(target.shape)}")
    values = at_least_float32(logits)
    index = target.unsqueeze(-1)
    log_q = values.log_softmax(dim=-1).gather(-1, index.expand(len(logits), -1, 1)).squeeze(-1)
    bracket = bracket_of_target(log_q, target, prior)
    if average == "probabilities":
        return bracket
    of_mean = values.mean(dim=0).log_softmax(dim=-1).gather(-1, index).squeeze(-1)
    return InformationBracket(bracket.lower, of_mean - prior.to(of_mean).log()[target])


def bracket_of_target(log_prob: Tensor, target: Tensor, prior: Tensor) -> InformationBracket:
    """Return :func:`information_bracket` of the labels' log-probabilities alone.

    Args:
        log_prob: (S, N) log-probabilities of the labels in S >= 1 draws.
        target: (N,) int64 class indices in [0, K).
        prior: (K,) class probabilities, above 0 for every label that occurs.

    Returns:
        :class:`InformationBracket`.

    Raises:
        TypeError: if ``prior`` is not floating point.
        ValueError: if ``prior`` does not fit.

    Example:
        >>> target, prior = torch.tensor([1]), torch.tensor([0.5, 0.5])
        >>> bracket_of_target(torch.zeros(3, 1), target, prior).lower
        tensor([0.6931])
    """
    check_prior("prior", prior)
    check_target_prior(target, prior)
    log_prior = prior.to(log_prob).log()[target]
    mixture = torch.logsumexp(log_prob, dim=0) - math.log(len(log_prob))
    return InformationBracket(log_prob.mean(dim=0) - log_prior, mixture - log_prior)
