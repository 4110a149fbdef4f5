"""Exact information quantities of a finite joint distribution, and of a table of counts."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_floating
from lastlayer.functional.information.entropy import entropy
from lastlayer.functional.numerics import at_least_float32

PLUG_IN_CORRECTIONS = ("none", "miller-madow")


def _checked(joint: Tensor) -> Tensor:
    check_floating("joint", joint)
    if joint.dim() != 2 or joint.numel() == 0:
        raise ValueError(
            f"joint must have shape (X, Y) with at least one cell; got {tuple(joint.shape)}"
        )
    joint = at_least_float32(joint)
    total = float(joint.detach().double().sum())
    if not (abs(total - 1.0) <= 1e-4 and bool((joint >= 0).all())):
        raise ValueError(
            f"joint must hold probabilities of sum 1; got smallest entry {float(joint.min()):g} "
            f"and sum {total:g}; divide a table of counts by its sum"
        )
    return joint


def joint_pointwise_information(joint: Tensor) -> Tensor:
    r"""Pointwise mutual information of every cell of a joint distribution.

    .. math:: \mathrm{pmi}(x, y) = \log \frac{P(x, y)}{P(x) P(y)}

    Args:
        joint: (X, Y) probabilities of sum 1.

    Returns:
        (X, Y) nats; -inf where the cell is empty, NaN where its row or column is.

    Raises:
        TypeError: if ``joint`` is not floating point.
        ValueError: if ``joint`` is no table of probabilities.

    Example:
        >>> joint_pointwise_information(torch.tensor([[0.5, 0.0], [0.0, 0.5]]))
        tensor([[0.6931,   -inf],
                [  -inf, 0.6931]])
    """
    joint = _checked(joint)
    return joint.log() - joint.sum(dim=1, keepdim=True).log() - joint.sum(dim=0, keepdim=True).log()


def mutual_information(joint: Tensor) -> Tensor:
    r"""Mutual information of a joint distribution.

    .. math:: I(X; Y) = \sum_{x, y} P(x, y) \log \frac{P(x, y)}{P(x) P(y)}

    Args:
        joint: (X, Y) probabilities of sum 1; empty cells, rows and columns count as 0.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: if ``joint`` is not floating point.
        ValueError: if ``joint`` is no table of probabilities.

    Example:
        >>> mutual_information(torch.tensor([[0.5, 0.0], [0.0, 0.5]]))
        tensor(0.6931)
    """
    joint = _checked(joint)
    pmi = joint_pointwise_information(joint)
    return (joint * torch.where(joint > 0, pmi, 0.0)).sum()


def conditional_entropy(joint: Tensor) -> Tensor:
    r"""Entropy of the column given the row, :math:`H(Y \mid X) = H(Y) - I(X; Y)`.

    Args:
        joint: (X, Y) probabilities of sum 1.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: if ``joint`` is not floating point.
        ValueError: if ``joint`` is no table of probabilities.

    Example:
        >>> conditional_entropy(torch.full((2, 2), 0.25))
        tensor(0.6931)
    """
    joint = _checked(joint)
    return entropy(joint.flatten()) - entropy(joint.sum(dim=1))


def chi_square_information(joint: Tensor) -> Tensor:
    r"""Chi-square divergence of a joint distribution from the product of its margins.

    .. math:: \chi^2(X; Y) = \sum_{x, y} \frac{(P(x, y) - P(x) P(y))^2}{P(x) P(y)}

    It is Pearson's statistic of a contingency table divided by n, and twice the mutual information
    to leading order under weak dependence.

    Args:
        joint: (X, Y) probabilities of sum 1; empty rows and columns count as 0.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: if ``joint`` is not floating point.
        ValueError: if ``joint`` is no table of probabilities.

    Example:
        >>> chi_square_information(torch.tensor([[0.5, 0.0], [0.0, 0.5]]))
        tensor(1.)
    """
    joint = _checked(joint)
    product = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    # The divisor is made safe before dividing, so that no NaN reaches the gradient.
    excess = (joint - product).square() / torch.where(product > 0, product, 1.0)
    return torch.where(product > 0, excess, 0.0).sum()


def plug_in_information(counts: Tensor, *, correction: str = "none") -> Tensor:
    r"""Mutual information estimated from a contingency table.

    .. math:: \hat I = I(\text{counts} / n), \qquad
        \hat I_{\mathrm{MM}} = \hat I - \frac{(K_x - 1)(K_y - 1)}{2n}

    The plug-in value exceeds the truth by :math:`(K_x - 1)(K_y - 1) / 2n` to first order when every
    cell can occur. With ``"miller-madow"`` that many, over the rows and columns that occur, are
    taken off; the result may be negative.

    Args:
        counts: (X, Y) counts, at least 0, of sum n >= 1.
        correction: ``"none"`` or ``"miller-madow"``.

    Returns:
        A float64 scalar, in nats.

    Raises:
        ValueError: if ``counts`` is no table of counts, or the option is unknown.

    Example:
        >>> counts = torch.tensor([[30, 10], [10, 50]])
        >>> plain = plug_in_information(counts)
        >>> round(float(plain - plug_in_information(counts, correction="miller-madow")), 6)
        0.005
    """
    check_choice("correction", correction, PLUG_IN_CORRECTIONS)
    table = counts.double()
    if table.dim() != 2 or not bool((table >= 0).all()) or float(table.sum()) < 1:
        raise ValueError(
            f"counts must be a table (X, Y) of numbers of at least 0 with sum at least 1; got "
            f"shape {tuple(counts.shape)} and sum {float(table.sum()):g}"
        )
    n = table.sum()
    value = mutual_information(table / n)
    if correction == "none":
        return value
    rows, columns = int((table.sum(1) > 0).sum()), int((table.sum(0) > 0).sum())
    return value - (rows - 1) * (columns - 1) / (2 * n)


def plug_in_information_null(x_counts: Tensor, y_counts: Tensor) -> Tensor:
    r"""Expected plug-in information of two variables that know nothing of each other.

    .. math:: \operatorname{E} \hat I = \sum_{x, y} \sum_m \frac mn \log \frac{n m}{a_x b_y}\,
        P(N_{xy} = m), \qquad N_{xy} \sim \mathrm{Hypergeometric}(n, a_x, b_y)

    It is the exact mean of :func:`plug_in_information` over all orders of the labels, whose counts
    a and b stay; :math:`(K_x - 1)(K_y - 1) / 2n` to first order.

    Args:
        x_counts: (X,) counts a of the values of X.
        y_counts: (Y,) counts b of the values of Y, of the same sum n >= 1.

    Returns:
        A float64 scalar, in nats.

    Raises:
        ValueError: if these are no counts of one sum.

    Example:
        >>> plug_in_information_null(torch.tensor([2, 2]), torch.tensor([2, 2]))
        tensor(0.2310, dtype=torch.float64)

    Source: Vinh, Epps, Bailey, JMLR 11, 2010 (the adjustment of clusterings for chance).
    """
    n = int(x_counts.sum())
    for name, counts in {"x_counts": x_counts, "y_counts": y_counts}.items():
        if counts.dim() != 1 or bool((counts < 0).any()) or int(counts.sum()) != n or n < 1:
            raise ValueError(
                f"{name} must be counts of at least 0, of one sum of at least 1 for both; "
                f"got shape {tuple(counts.shape)} and sums {n} and {int(y_counts.sum())}"
            )
    b = y_counts[y_counts > 0].double().unsqueeze(1)
    total = b.new_zeros(())
    for a in x_counts[x_counts > 0].tolist():
        m = torch.arange(1, min(a, int(b.max())) + 1, device=b.device).double()
        log_probability = (
            _log_choose(b, m)
            + _log_choose(n - b, a - m)
            - _log_choose(b.new_tensor(n), b.new_tensor(a))
        )
        terms = m / n * (n * m / (a * b)).log() * log_probability.exp()
        possible = (m <= b) & (a - m <= n - b)
        total = total + torch.where(possible, terms, 0.0).sum()
    return total


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    """Return the logarithm of the binomial coefficient; anything where k is not in [0, n]."""
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0.0) + 1)
