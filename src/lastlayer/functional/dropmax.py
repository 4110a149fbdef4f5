r"""DropMax: a softmax whose classes are kept or dropped at random, as pure functions.

Notation of this module, all tensors of shape (\*, K):

- ``logits`` :math:`o`, the class logits;
- ``retain_logits`` :math:`a`, with retain probability :math:`\rho = \sigma(a)`;
- ``correction_logits`` :math:`r`, which turn the prior into the posterior
  :math:`g = \sigma(a + r)`;
- ``log_mask`` :math:`\log z`, with :math:`z \in [0, 1]`.

Everything stays in the log domain, so that no probability is ever clamped. Half-precision inputs
are computed, and returned, in float32.

Sources: Lee et al., "DropMax: Adaptive Variational Softmax", NeurIPS 2018 (form ``"neurips"``), and
its predecessor "DropMax: Adaptive Stochastic Softmax", ICLR 2018 submission (form ``"iclr"``).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_at_least, check_choice, check_floating, check_positive

FORMS = ("neurips", "iclr")
ENTROPY_CLASSES = ("all", "non-target")

# Uniform numbers drawn in float32 are multiples of 2^-24 below 1; half a step keeps them above 0.
_OPEN_INTERVAL_MARGIN = 2.0**-25
# Elements of one block of Monte Carlo masks: bounds the memory, not the result.
_MONTE_CARLO_BLOCK = 2**22


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def softplus(value: Tensor) -> Tensor:
    """Return log(1 + exp(value)); torch's default threshold would cost float64 eight digits."""
    return F.softplus(value, threshold=40.0)


def _check_form(form: str, eps: float) -> None:
    check_choice("form", form, FORMS)
    check_positive("eps", eps)


def one_hot_mask(target: Tensor, num_classes: int) -> Tensor:
    """Mark the target class of every row.

    Args:
        target: (*) int64 class indices in [0, K).
        num_classes: number of classes K.

    Returns:
        (*, K) bool, True at the target.

    Example:
        >>> one_hot_mask(torch.tensor([2, 0]), 3).int().tolist()
        [[0, 0, 1], [1, 0, 0]]
    """
    return torch.arange(num_classes, device=target.device) == target.unsqueeze(-1)


def logistic_noise(like: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw standard logistic noise :math:`\log u - \log(1 - u)`, :math:`u \sim U(0, 1)`.

    Args:
        like: tensor whose shape, dtype (float32 for half precision) and device the noise takes.
        generator: source of randomness; the default generator of the device if None.

    Returns:
        Finite noise of the shape of ``like``.

    Example:
        >>> noise = logistic_noise(torch.empty(2, 3), generator=torch.Generator().manual_seed(0))
        >>> noise.shape
        torch.Size([2, 3])
    """
    like = _at_least_float32(like)
    uniform = torch.empty_like(like, requires_grad=False).uniform_(generator=generator)
    return torch.logit(uniform, eps=_OPEN_INTERVAL_MARGIN)


def concrete_log_mask(
    retain_logits: Tensor,
    *,
    temperature: float = 0.1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw the logarithm of a relaxed (binary concrete) mask.

    .. math:: z = \sigma((a + L) / \tau), \qquad P(z > 1/2) = \sigma(a) \text{ at every } \tau.

    Args:
        retain_logits: (*, K) retain logits :math:`a`.
        temperature: :math:`\tau > 0`; the papers use 0.1.
        noise: (*, K) logistic noise :math:`L`; drawn if None.
        generator: source of the noise that is drawn.

    Returns:
        (*, K) :math:`\log z \le 0`, differentiable with respect to ``retain_logits``.

    Raises:
        ValueError: if ``temperature`` is not above 0.

    Example:
        >>> concrete_log_mask(torch.tensor([2.0]), noise=torch.tensor([-2.0])).exp()
        tensor([0.5000])

    Source: Maddison et al. and Jang et al., ICLR 2017; DropMax (ICLR 2018), section 3.
    """
    check_positive("temperature", temperature)
    retain_logits = _at_least_float32(retain_logits)
    if noise is None:
        noise = logistic_noise(retain_logits, generator=generator)
    return F.logsigmoid((retain_logits + noise) / temperature)


def bernoulli_log_mask(
    retain_logits: Tensor,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw the logarithm of a hard mask, :math:`z \sim \mathrm{Bernoulli}(\sigma(a))`.

    Args:
        retain_logits: (*, K) retain logits :math:`a`.
        noise: (*, K) logistic noise; the class is kept where :math:`a + L > 0`. Drawn if None.
        generator: source of the noise that is drawn.

    Returns:
        (*, K) of 0 (kept) and -inf (dropped), without gradient.

    Example:
        >>> bernoulli_log_mask(torch.tensor([2.0, -2.0]), noise=torch.zeros(2))
        tensor([0., -inf])
    """
    retain_logits = _at_least_float32(retain_logits).detach()
    if noise is None:
        noise = logistic_noise(retain_logits, generator=generator)
    return torch.where(retain_logits + noise > 0, 0.0, -math.inf).to(retain_logits.dtype)


def retain_target(log_mask: Tensor, target: Tensor) -> Tensor:
    """Keep the target class for certain: its mask becomes 1, a constant.

    Args:
        log_mask: (*, K) logarithm of a mask.
        target: (*) int64 class indices in [0, K).

    Returns:
        (*, K) log mask, 0 at the target.

    Example:
        >>> retain_target(torch.tensor([[-1.0, -2.0]]), torch.tensor([1]))
        tensor([[-1.,  0.]])

    Source: DropMax (NeurIPS 2018): the posterior of the target's mask is Ber(1).
    """
    return log_mask.masked_fill(one_hot_mask(target, log_mask.shape[-1]), 0.0)


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
    _check_form(form, eps)
    check_floating("logits", logits)
    logits, log_mask = _at_least_float32(logits), _at_least_float32(log_mask)
    log_eps = torch.tensor(math.log(eps), dtype=logits.dtype, device=logits.device)
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
    log_retain_prob = F.logsigmoid(_at_least_float32(retain_logits))
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
    exact value of this average is :func:`lastlayer.functional.expected_log_prob`.

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
    _check_form(form, eps)
    check_at_least("num_samples", num_samples, 1)
    logits, retain_logits = _at_least_float32(logits), _at_least_float32(retain_logits)
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


def bernoulli_kl(
    correction_logits: Tensor,
    retain_logits: Tensor,
    target: Tensor,
    *,
    held_prior: Tensor | None = None,
) -> Tensor:
    r"""KL divergence of the masks' posterior from their prior, summed over classes.

    .. math::
        -\log \rho_t + \sum_{k \ne t} g_k \log\frac{g_k}{\rho_k}
        + (1 - g_k) \log\frac{1 - g_k}{1 - \rho_k},
        \qquad g = \sigma(\mathrm{sg}[a] + r)

    The posterior keeps the target for certain. The prior inside :math:`g` is held constant; its
    other places are not, so that the divergence teaches the prior.

    Args:
        correction_logits: (*, K) label-correction logits :math:`r`.
        retain_logits: (*, K) prior retain logits :math:`a`.
        target: (*) int64 class indices in [0, K).
        held_prior: (*, K) the prior inside :math:`g`: the values of ``retain_logits``, with the
            gradient that they should have there; none if None.

    Returns:
        (*) divergence in nats, at least 0.

    Example:
        >>> bernoulli_kl(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([0]))
        tensor([0.6931])

    Source: DropMax (NeurIPS 2018), the KL term of its objective.
    """
    correction, prior = _at_least_float32(correction_logits), _at_least_float32(retain_logits)
    is_target = one_hot_mask(target, prior.shape[-1])
    # A Bernoulli may be told by either outcome; the rarer one loses no digits at large logits.
    sign = torch.where(prior > 0, -1.0, 1.0)
    held = prior.detach() if held_prior is None else _at_least_float32(held_prior)
    posterior = held + correction
    difference = correction + (held - prior)  # value r, gradient of posterior - prior
    non_target = (
        torch.sigmoid(sign * posterior) * (sign * difference)
        + softplus(sign * prior)
        - softplus(sign * posterior)
    )
    return torch.where(is_target, softplus(-prior), non_target).sum(dim=-1)


def target_retention_loss(retain_logits: Tensor, target: Tensor) -> Tensor:
    r"""What the divergence is when the posterior equals the prior but for the target.

    .. math:: \mathrm{KL} = -\log \rho_t = \mathrm{softplus}(-a_t)

    Args:
        retain_logits: (*, K) retain logits.
        target: (*) int64 class indices in [0, K).

    Returns:
        (*) nats.

    Example:
        >>> target_retention_loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor([0.6931])

    Source: DropMax (ICLR 2018), eq. 10; the q=p variant of NeurIPS 2018.
    """
    at_target = _at_least_float32(retain_logits).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return softplus(-at_target)


def negative_entropy(
    retain_logits: Tensor, target: Tensor | None = None, *, classes: str = "all"
) -> Tensor:
    r"""Negative entropy of the retain probabilities, summed over classes.

    .. math:: \sum_k \rho_k \log \rho_k + (1 - \rho_k) \log (1 - \rho_k)
        = \sum_k \rho_k a_k - \mathrm{softplus}(a_k)

    Minimising it raises the entropy, which keeps the prior from collapsing onto the posterior.

    Args:
        retain_logits: (*, K) retain logits.
        target: (*) int64 class indices, needed for ``classes="non-target"`` only.
        classes: ``"all"`` (NeurIPS 2018) or ``"non-target"`` (ICLR 2018).

    Returns:
        (*) nats, between -K log 2 and 0.

    Raises:
        ValueError: if ``classes`` is unknown, or the target is missing where it is needed.

    Example:
        >>> negative_entropy(torch.zeros(1, 3))
        tensor([-2.0794])

    Source: DropMax (NeurIPS 2018) eq. 13 with the sign its authors corrected; ICLR 2018 eq. 14.
    """
    check_choice("classes", classes, ENTROPY_CLASSES)
    prior = _at_least_float32(retain_logits)
    # Entropy is even in the logit; at -|a| neither term is large, so nothing cancels.
    folded = torch.where(prior > 0, -prior, prior)  # not -abs, whose curvature is wrong at 0
    per_class = torch.sigmoid(folded) * folded - softplus(folded)
    if classes == "non-target":
        if target is None:
            raise ValueError('classes="non-target" needs the target; got None')
        per_class = per_class.masked_fill(one_hot_mask(target, prior.shape[-1]), 0.0)
    return per_class.sum(dim=-1)


def auxiliary_loss(correction_logits: Tensor, target: Tensor) -> Tensor:
    r"""Binary cross-entropy that ties the posterior's correction to the label.

    .. math:: -\sum_k y_k \log \sigma(r_k) + (1 - y_k) \log(1 - \sigma(r_k))

    Args:
        correction_logits: (*, K) label-correction logits :math:`r`.
        target: (*) int64 class indices in [0, K).

    Returns:
        (*) nats, summed over classes.

    Example:
        >>> auxiliary_loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor([1.3863])

    Source: DropMax (NeurIPS 2018), L_aux.
    """
    correction = _at_least_float32(correction_logits)
    is_target = one_hot_mask(target, correction.shape[-1])
    return softplus(torch.where(is_target, -correction, correction)).sum(dim=-1)
