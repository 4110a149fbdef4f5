"""The one-sided H-score: how much of a label linear read-outs of features can explain."""

from __future__ import annotations

from torch import Tensor

from lastlayer._checks import check_at_least, check_count, check_whole
from lastlayer.functional.dependence.class_spread import class_spread

#: Above this share of its maximum, the H-score of pure noise is worth a warning.
NOISE_SHARE = 0.1


def h_score(features: Tensor, target: Tensor, *, rtol: float | None = None) -> Tensor:
    r"""One-sided H-score of features for a label.

    .. math:: H_1(f) = \operatorname{tr}\bigl(\operatorname{Cov}(f)^{-1}
        \operatorname{Cov}(\operatorname{E}[f \mid Y])\bigr),
        \qquad 0 \le H_1 \le \min(\operatorname{rank} f, K - 1)

    It is the sum of the squared canonical correlations between f and the one-hot label, Pillai's
    trace of the one-way MANOVA, and does not change under invertible affine maps of f. Both
    covariances have the same divisor, which cancels; directions without variance are left out.
    Some texts, among them the one that introduced it for networks, use :math:`\tfrac12 H_1`, the
    maximum over g of :func:`~lastlayer.functional.dependence.two_sided_h_score`.

    Features that are independent of the label do not score 0 on a sample: see
    :func:`h_score_null`, and :func:`~lastlayer.functional.dependence.shrunk_h_score`.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        target: (N,) integer labels; they need not be contiguous, and a class without examples does
            not count.
        rtol: directions of the standardized features with a singular value of at most ``rtol``
            times the largest are left out; None for max(N, D) times the float64 epsilon.

    Returns:
        A 0-d float64 tensor; 0 for constant features or a single class.

    Raises:
        TypeError: if ``features`` are not floating-point or ``target`` not integers.
        ValueError: if a shape does not fit, N < 2, or a feature is not finite.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0], [2.0], [2.0], [4.0]])
        >>> h_score(features, torch.tensor([0, 0, 1, 1]))
        tensor(0.5000, dtype=torch.float64)

    Source: Bao et al., ICIP 2019; Xu, Huang, Zheng, Wornell, Entropy 24(1), 2022.
    """
    return class_spread(features, target, rtol=rtol).between.sum()


def h_score_null(num_features: int, num_classes: int, num_examples: int) -> float:
    r"""Expected H-score of features that know nothing of the label.

    .. math:: \operatorname{E} H_1 = \frac{d (K - 1)}{n - 1}, \qquad d \le n - 1

    For d of n - 1 or more the H-score is K - 1 whatever the features are.

    Args:
        num_features: rank d of the features.
        num_classes: number of classes K with examples.
        num_examples: n >= 2.

    Returns:
        A number in [0, K - 1].

    Raises:
        ValueError: if a count does not fit.

    Example:
        >>> round(h_score_null(50, 10, 200), 3)
        2.261
    """
    check_whole("num_features", num_features, 0)
    check_count("num_classes", num_classes)
    check_whole("num_examples", num_examples, 2)
    return min(num_features, num_examples - 1) * (num_classes - 1) / (num_examples - 1)


def h_score_warnings(num_features: int, num_classes: int, num_examples: int) -> tuple[str, ...]:
    """What to know before an H-score is believed.

    Args:
        num_features: rank d of the features.
        num_classes: number of classes with examples.
        num_examples: n >= 2.

    Returns:
        Sentences; none if there are far more examples than features, and two classes or more.

    Raises:
        ValueError: if a count does not fit.

    Examples:
        >>> h_score_warnings(50, 10, 10_000)
        ()
        >>> h_score_warnings(199, 10, 200)[0][:54]
        '199 independent features on 200 examples give K - 1 = '
    """
    null = h_score_null(num_features, num_classes, num_examples)
    if num_classes == 1:
        return ("all examples have one label: the H-score is 0",)
    if num_features >= num_examples - 1:
        return (
            f"{num_features} independent features on {num_examples} examples give K - 1 = "
            f"{num_classes - 1} for any labels, noise included; take more examples",
        )
    if num_features > NOISE_SHARE * (num_examples - 1):
        return (
            f"{num_features} independent features on {num_examples} examples score {null:.3g} "
            "without knowing the label; read the excess over it or the shrunk H-score",
        )
    return ()


def h_score_aic(h_score: float, num_parameters: int, num_examples: int) -> float:
    r"""H-score less the cost of the parameters that made the features.

    .. math:: H_{\mathrm{AIC}} = \tfrac12 H_1 - \frac{p}{n_{\mathrm{train}}}

    Args:
        h_score: :math:`H_1` of the features, without the half.
        num_parameters: trainable parameters p.
        num_examples: examples that they were trained on.

    Returns:
        The score; higher is better.

    Raises:
        ValueError: if a number does not fit.

    Example:
        >>> h_score_aic(4.0, num_parameters=1000, num_examples=10_000)
        1.9

    Source: Xu, Huang, Zheng, Wornell, Entropy 24(1), 2022.
    """
    check_at_least("h_score", h_score, 0.0)
    check_whole("num_parameters", num_parameters, 0)
    check_count("num_examples", num_examples)
    return 0.5 * h_score - num_parameters / num_examples
