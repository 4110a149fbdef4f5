"""The probability-corrected softmax: a density ratio, its loss, and what is read off its logits."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_choice, check_floating, check_prior
from lastlayer.functional.class_priors.adjustment import adjust_logits
from lastlayer.functional.class_priors.shifted_loss import prior_shifted_loss
from lastlayer.functional.layout import float_rows
from lastlayer.functional.loss_arguments import LossArguments, explained
from lastlayer.functional.numerics import at_least_float32, centered_partition


def log_pc_softmax(logits: Tensor, prior: Tensor, *, dim: int = -1) -> Tensor:
    r"""Logarithm of the probability-corrected softmax, a density ratio.

    .. math:: \log \mathrm{PC}_y = n_y - \log \sum_j \pi_j e^{n_j}
        \;\approx\; \log \frac{p(y \mid x)}{p(y)}

    It is no log-probability: :math:`\sum_y \pi_y \mathrm{PC}_y = 1`, and a value may be as large as
    :math:`-\log \pi_y`. Adding a constant to a row of logits changes nothing. Of logits trained by
    :func:`pc_softmax_loss` it is the pointwise mutual information of input and label.

    A class of prior 0 is absent from the normalizer, and its own ratio is undefined: NaN.

    Args:
        logits: (*, K, *) floating point; half precision is computed in float32.
        prior: (K,) class probabilities :math:`\pi`, sum 1.
        dim: the class dimension.

    Returns:
        The shape of ``logits``, in nats.

    Raises:
        TypeError: if ``logits`` or ``prior`` is not floating point.
        ValueError: if ``prior`` does not hold K probabilities.

    Example:
        >>> log_ratio = log_pc_softmax(torch.tensor([1000.0, 0.0]), torch.tensor([0.2, 0.8]))
        >>> [round(value, 3) for value in log_ratio.tolist()]
        [1.609, -998.391]

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688.
    """
    rows, log_prior = rows_and_log_prior(logits, prior, dim)
    centered, log_partition = centered_partition(rows, log_prior)
    ratio = (centered - log_partition.unsqueeze(-1)).masked_fill(log_prior == -torch.inf, torch.nan)
    return ratio.movedim(-1, dim)


def pc_softmax(logits: Tensor, prior: Tensor, *, dim: int = -1) -> Tensor:
    r"""Probability-corrected softmax, the density ratio :math:`p(y \mid x) / p(y)` of a model.

    .. math:: \mathrm{PC}_y = \frac{e^{n_y}}{\sum_j \pi_j e^{n_j}} \in [0, 1 / \pi_y], \qquad
        \sum_y \pi_y \mathrm{PC}_y = 1

    Args:
        logits: (*, K, *) floating point; half precision is computed in float32.
        prior: (K,) class probabilities :math:`\pi`, sum 1.
        dim: the class dimension.

    Returns:
        The shape of ``logits``; NaN for a class of prior 0.

    Raises:
        TypeError: if ``logits`` or ``prior`` is not floating point.
        ValueError: if ``prior`` does not hold K probabilities.

    Example:
        >>> pc_softmax(torch.tensor([0.0, 0.0]), torch.tensor([0.9, 0.1]))
        tensor([1., 1.])

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688.
    """
    return log_pc_softmax(logits, prior, dim=dim).exp()


def rows_and_log_prior(logits: Tensor, prior: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the logits with their classes last and the (K,) log prior, -inf where it is 0."""
    check_floating("logits", logits)
    if logits.dim() == 0:
        raise ValueError("logits must have a class dimension; got a scalar")
    rows = at_least_float32(logits).movedim(dim, -1)
    check_prior("prior", prior, rows.shape[-1])
    return rows, prior.to(rows).log()


@explained
def pc_softmax_loss(
    logits: Tensor, target: Tensor, prior: Tensor, **arguments: Unpack[LossArguments]
) -> Tensor:
    r"""Negative log density ratio of the labels; its mean is minus a bound on the information.

    .. math:: L(n; y) = \log \sum_j \pi_j e^{n_j} - n_y, \qquad
        \mathrm{E}\,L \ge -I(X; Y), \qquad \nabla_n L = \mathrm{softmax}(n + \log \pi) - y

    The loss is normally negative: it falls to minus the mutual information, not to 0. It has the
    gradient of the cross entropy of :math:`n + \log \pi` and differs from it by
    :math:`\log \pi_y`. For a target distribution t it is
    :math:`\mathrm{CE}(n + \log \pi, t) + \sum_k t_k \log \pi_k`. Class weights, soft targets and
    smoothing shape the training; with them the value is no longer an information.

    Trained so, the largest logit is the maximum-likelihood decision, which ignores the prior; see
    :func:`probability_corrected_log_prob` for class probabilities.

    Args:
        logits: {logits}
        target: {target}
        prior: (K,) class probabilities :math:`\pi` of the training data, sum 1. A class of prior 0
            is absent from the normalizer and may not be a target.
        **arguments: {arguments}

    Returns:
        A scalar, or one value per row for ``"none"``, in nats.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a class index or an option does not fit, or a target has prior 0
            (looked at on the CPU only; elsewhere the loss is NaN).

    Example:
        >>> import torch
        >>> prior = torch.tensor([0.8, 0.2])
        >>> pc_softmax_loss(torch.tensor([[0.0, 5.0]]), torch.tensor([1]), prior)
        tensor(-1.5828)

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688.
    """
    rows = float_rows(logits)
    check_prior("prior", prior, rows.shape[-1], wait=False)
    return prior_shifted_loss(
        logits,
        target,
        prior.to(rows).log(),
        include_label_prior=False,
        undefined=(
            "a class of prior 0, whose density ratio is undefined; give the class a prior above 0, "
            "or ignore the row"
        ),
        **arguments,
    )


#: The losses after which logits can be read as pointwise information.
TRAINED_WITH = ("cross-entropy", "pc-softmax")


def pointwise_information(
    logits: Tensor, prior: Tensor, *, trained_with: str = "cross-entropy", dim: int = -1
) -> Tensor:
    r"""Pointwise mutual information of every input and class, as the model sees it.

    .. math::
        \mathrm{pmi}(x, y) = \log \frac{p(y \mid x)}{p(y)} \approx
        \begin{cases}
            \log \mathrm{softmax}_y(n) - \log \pi_y & \text{cross-entropy} \\
            n_y - \log \sum_j \pi_j e^{n_j} & \text{PC-softmax}
        \end{cases}

    It is at most :math:`-\log \pi_y`, has no lower limit, and
    :math:`\sum_y \pi_y e^{\mathrm{pmi}(x, y)} = 1` for every x. Reading logits in the way of the
    other loss underestimates the information.

    Args:
        logits: (*, K, *) logits; log-probabilities do as well for ``"cross-entropy"``.
        prior: (K,) class probabilities :math:`\pi`, sum 1.
        trained_with: the loss the logits were trained with, ``"cross-entropy"`` or
            ``"pc-softmax"``.
        dim: the class dimension.

    Returns:
        The shape of ``logits``, in nats; NaN for a class of prior 0, where it is undefined.

    Raises:
        TypeError: if ``logits`` or ``prior`` is not floating point.
        ValueError: if an option or the shape of ``prior`` does not fit.

    Example:
        >>> prior = torch.tensor([0.8, 0.2])
        >>> pointwise_information(torch.tensor([[0.5, 0.5]]).log(), prior)
        tensor([[-0.4700,  0.9163]])
        >>> pointwise_information(torch.eye(2), prior, trained_with="pc-softmax")
        tensor([[ 0.1352, -0.8648],
                [-0.2954,  0.7046]])

    Source: Qin and Kim, "Softmax is not an artificial trick", arXiv 1910.02629; Qin, Kim and
    Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688; derived here.
    """
    check_choice("trained_with", trained_with, TRAINED_WITH)
    if trained_with == "pc-softmax":
        return log_pc_softmax(logits, prior, dim=dim)
    rows, log_prior = rows_and_log_prior(logits, prior, dim)
    ratio = rows.log_softmax(dim=-1) - log_prior
    return ratio.masked_fill(log_prior == -torch.inf, torch.nan).movedim(-1, dim)


def probability_corrected_log_prob(logits: Tensor, prior: Tensor, *, dim: int = -1) -> Tensor:
    r"""Class log-probabilities of logits trained by the probability-corrected softmax.

    .. math:: \log p(y \mid x) = \log \mathrm{softmax}_y(n + \log \pi)

    Such logits hold the likelihood alone, so :math:`\pi` may be any prior: the one of the training
    data or the one that is expected in use. For logits trained by the cross entropy use
    :func:`post_compensated_log_prob`.

    Args:
        logits: (*, K, *) logits n trained by :func:`pc_softmax_loss`.
        prior: (K,) class probabilities :math:`\pi`, sum 1; a class of prior 0 gets probability 0.
        dim: the class dimension.

    Returns:
        The shape of ``logits``: log-probabilities.

    Raises:
        TypeError: if ``logits`` or ``prior`` is not floating point.
        ValueError: if ``prior`` does not hold K probabilities.

    Example:
        >>> probability_corrected_log_prob(torch.zeros(2), torch.tensor([0.9, 0.1])).exp()
        tensor([0.9000, 0.1000])

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020
    (the same training); derived here.
    """
    rows, log_prior = rows_and_log_prior(logits, prior, dim)
    return (rows + log_prior).log_softmax(dim=-1).movedim(-1, dim)


def post_compensated_log_prob(
    logits: Tensor, source_prior: Tensor, target_prior: Tensor, *, dim: int = -1
) -> Tensor:
    r"""Class log-probabilities of logits trained by the cross entropy, moved to another prior.

    .. math:: \log p'(y \mid x) = \log \mathrm{softmax}_y(n - \log \pi^{\text{source}}
        + \log \pi^{\text{target}})

    Some authors call this "PC softmax", for post-compensated; it changes the prediction of a
    finished model, where the probability-corrected softmax changes the training.

    Args:
        logits: (*, K, *) logits n, or log-probabilities, trained by the cross entropy.
        source_prior: (K,) class probabilities of the training data, sum 1.
        target_prior: (K,) class probabilities where the model is used, sum 1; a class of 0 gets
            probability 0.
        dim: the class dimension.

    Returns:
        The shape of ``logits``: log-probabilities.

    Raises:
        TypeError: if an argument is not floating point.
        ValueError: if a prior does not hold K probabilities, or a class has a target prior above 0
            and a source prior of 0: nothing was learned of it.

    Example:
        >>> log_prob = torch.tensor([0.9, 0.1]).log()
        >>> source, target = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
        >>> post_compensated_log_prob(log_prob, source, target).exp()
        tensor([0.5000, 0.5000])

    Source: Hong et al., "Disentangling Label Distribution for Long-tailed Visual Recognition"
    (LADE), 2021.
    """
    rows, log_source = rows_and_log_prior(logits, source_prior, dim)
    check_prior("target_prior", target_prior, rows.shape[-1])
    unlearned = (target_prior.to(rows) > 0) & (log_source == -torch.inf)
    if can_look(unlearned, wait=True) and bool(unlearned.any()):
        raise ValueError(
            f"class {int(unlearned.nonzero()[0])} has source_prior 0 but target_prior above 0; "
            "a model that never saw a class has no odds for it"
        )
    adjusted = adjust_logits(rows, source_prior.to(rows), target_prior=target_prior.to(rows))
    return adjusted.log_softmax(dim=-1).movedim(-1, dim)
