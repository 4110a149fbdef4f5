"""Class probabilities of DropMax: under one mask, at the mean mask, and over sampled masks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_choice, check_count, check_floating, check_positive
from lastlayer.functional.dropmax.masks import bernoulli_log_mask
from lastlayer.functional.numerics import at_least_float32

FORMS = ("neurips", "iclr")

# Elements of one block of Monte Carlo masks: bounds the memory, not the result.
_MONTE_CARLO_BLOCK = 2**22


def masked_log_prob(
    logits: Tensor, log_mask: Tensor, *, form: str = "neurips", eps: float = 1e-20
) -> Tensor:
    r"""Class log-probabilities under one mask.

    .. math::
        \text{neurips: } p_y \propto (z_y + \epsilon) e^{o_y}
        \qquad
        \text{iclr: } p_y \propto z_y e^{o_y} + \epsilon

    With all classes dropped, ``"neurips"`` is the plain softmax and ``"iclr"`` is uniform.

    Args:
        logits: (*, K) class logits :math:`o`.
        log_mask: (*, K) :math:`\log z`, entries in [-inf, 0].
        form: where :math:`\epsilon` stands, ``"neurips"`` or ``"iclr"``.
        eps: :math:`\epsilon > 0`; the released code uses 1e-20.

    Returns:
        (*, K) log-probabilities; each row's probabilities sum to 1.

    Raises:
        ValueError: if ``form`` is unknown or ``eps`` is not above 0.

    Example:
        >>> kept = torch.tensor([0.0, 0.0, -torch.inf])
        >>> masked_log_prob(torch.zeros(3), kept).exp()
        tensor([5.0000e-01, 5.0000e-01, 5.0000e-21])

    Source: DropMax (ICLR 2018) eq. 3; DropMax (NeurIPS 2018) eq. 2 and the released code.
    """
    check_choice("form", form, FORMS)
    check_positive("eps", eps)
    check_floating("logits", logits)
    logits, log_mask = at_least_float32(logits), at_least_float32(log_mask)
    log_eps = logits.new_full((), math.log(eps))
    if form == "neurips":
        return F.log_softmax(logits + torch.logaddexp(log_mask, log_eps), dim=-1)
    return F.log_softmax(torch.logaddexp(log_mask + logits, log_eps), dim=-1)


def plug_in_log_prob(
    logits: Tensor, retain_logits: Tensor, *, form: str = "neurips", eps: float = 1e-20
) -> Tensor:
    r"""Class log-probabilities with the mask at its mean, :math:`z := \rho = \sigma(a)`.

    Args:
        logits: (*, K) class logits.
        retain_logits: (*, K) retain logits.
        form: ``"neurips"`` or ``"iclr"``, see :func:`masked_log_prob`.
        eps: :math:`\epsilon > 0`.

    Returns:
        (*, K) log-probabilities.

    Example:
        >>> plug_in_log_prob(torch.zeros(2), torch.tensor([0.0, 0.0])).exp()
        tensor([0.5000, 0.5000])

    Source: DropMax (ICLR 2018) eq. 18; the prediction of the released NeurIPS 2018 code.
    """
    log_retain_prob = F.logsigmoid(at_least_float32(retain_logits))
    return masked_log_prob(logits, log_retain_prob, form=form, eps=eps)


def monte_carlo_log_prob(
    logits: Tensor,
    retain_logits: Tensor,
    *,
    num_samples: int = 100,
    form: str = "neurips",
    eps: float = 1e-20,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Log of the mean of class probabilities over random hard masks.

    .. math:: \log \bar p = \log \tfrac1S \sum_s p(\cdot \mid x, z^{(s)}), \quad z \sim
        \mathrm{Bernoulli}(\rho)

    Any class may drop, the right one included, since the target is unknown at test time. The
    exact value of this average is :func:`lastlayer.functional.dropmax.expected_log_prob`.

    Args:
        logits: (*, K) class logits.
        retain_logits: (*, K) retain logits.
        num_samples: number of masks S >= 1.
        form: ``"neurips"`` or ``"iclr"``.
        eps: :math:`\epsilon > 0`.
        noise: (S, *, K) logistic noise; drawn if None.
        generator: source of the noise that is drawn.

    Returns:
        (*, K) log-probabilities.

    Raises:
        ValueError: if ``num_samples`` < 1 or the noise does not hold that many samples.

    Example:
        >>> noise = torch.tensor([[0.0, 0.0], [0.0, -3.0]])  # the second mask drops class 1
        >>> logits, retain_logits = torch.zeros(2), torch.full((2,), 2.0)
        >>> monte_carlo_log_prob(logits, retain_logits, num_samples=2, noise=noise).exp()
        tensor([0.7500, 0.2500])

    Source: DropMax (ICLR 2018) eq. 17.
    """
    check_count("num_samples", num_samples)
    logits, retain_logits = at_least_float32(logits), at_least_float32(retain_logits)
    if noise is not None and noise.shape != (num_samples, *retain_logits.shape):
        raise ValueError(
            f"noise must have shape {(num_samples, *retain_logits.shape)}; got {tuple(noise.shape)}"
        )
    block = max(1, _MONTE_CARLO_BLOCK // max(1, logits.numel()))
    running: Tensor | None = None
    for start in range(0, num_samples, block):
        count = min(block, num_samples - start)
        drawn = noise[start : start + count] if noise is not None else None
        log_mask = bernoulli_log_mask(
            retain_logits.expand(count, *retain_logits.shape), noise=drawn, generator=generator
        )
        block_sum = masked_log_prob(logits, log_mask, form=form, eps=eps).logsumexp(dim=0)
        running = block_sum if running is None else torch.logaddexp(running, block_sum)
    if running is None:  # unreachable, num_samples >= 1
        raise RuntimeError("no mask was drawn")
    return running - math.log(num_samples)
