"""Where in a feature map the evidence for a class lies: CAM, infoCAM and infoCAM+.

For networks that end in a feature map, its mean over all cells and one linear layer. Maps are raw:
signed and of the size of the feature map; their means over the cells are in logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_choice, check_class_indices, check_count, check_floating

METHODS = ("cam", "infocam", "infocam+")
PADDINGS = ("same", "valid")
REDUCTIONS = ("sum", "mean")


def class_map(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    method: str = "infocam",
    reference: Tensor | None = None,
    window: int | None = None,
    padding: str = "same",
    reduction: str = "mean",
) -> Tensor:
    r"""Map what every cell of a feature map says for a class, or for it against the others.

    .. math::

        \mathrm{CAM}_t(a, b) &= \textstyle\sum_c W_{tc} f_c(a, b) \\
        \mathrm{infoCAM}_t &= \mathrm{CAM}_t - \tfrac{1}{K-1} \textstyle\sum_{y \ne t}
            \mathrm{CAM}_y \\
        \mathrm{infoCAM}^+_t &= \mathrm{CAM}_t - \mathrm{CAM}_{y^-}, \qquad
            y^- = \arg\min_y n_y

    With Z cells and logits :math:`n_y = b_y + \frac{1}{Z} \sum_{ab} \mathrm{CAM}_y(a, b)`, the mean
    of infoCAM over the cells is the class's logit less the mean of the others', up to the same
    difference of biases: with equal priors, its pointwise information less that of the others.
    The infoCAMs of all classes add up to 0 in every cell, and adding one row to all rows of W
    leaves them as they are, as it does the softmax; CAM changes with it.

    Only the maps that are asked for are formed, each as one product with one row.

    Args:
        features: (N, C, h, w) last feature map f.
        weight: (K, C) class weights W.
        target: (N,) int64 class t of every example, or (N, T) for T maps of each.
        method: ``"cam"``, ``"infocam"`` or ``"infocam+"``.
        reference: (N,) int64 least likely class of every example, see
            :func:`least_likely_class`; for ``"infocam+"`` alone. Where it is the target the map
            is 0.
        window: side of a square window over which the map is reduced; None for single cells.
        padding: see :func:`window_reduce`.
        reduction: see :func:`window_reduce`.

    Returns:
        (N, h, w), or (N, T, h, w) for (N, T) targets; in float32 at least. NaN features give NaN.

    Raises:
        ValueError: if a shape, label or name does not fit, or ``"infocam"`` is asked for with
            fewer than two classes.
        TypeError: if a dtype does not fit.

    Examples:
        >>> features = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])  # two channels, 1 x 2 cells
        >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> class_map(features, weight, torch.tensor([0]), method="cam")
        tensor([[[2., 0.]]])
        >>> class_map(features, weight, torch.tensor([0]))
        tensor([[[ 2., -2.]]])

    References:
        Zhou et al., "Learning deep features for discriminative localization", CVPR 2016 (CAM).
        Qin, Kim, Gedeon, "Informative class activation maps", arXiv:2106.10472 (infoCAM, infoCAM+).
    """
    _check_shapes(features, weight, target)
    # Half precision cannot hold a difference of sums.
    dtype = torch.promote_types(torch.promote_types(features.dtype, weight.dtype), torch.float32)
    rows = map_weight(weight.to(dtype), target, method=method, reference=reference)
    rows = rows.unsqueeze(1) if target.dim() == 1 else rows
    maps = torch.bmm(rows, features.to(dtype).flatten(2))
    maps = maps.reshape(*target.shape, *features.shape[2:])
    if window is None:
        return maps
    return window_reduce(maps, window, padding=padding, reduction=reduction)


def map_weight(
    weight: Tensor, target: Tensor, *, method: str = "infocam", reference: Tensor | None = None
) -> Tensor:
    r"""Return the one row of weights by which a class's map is a product with the features.

    .. math::

        W_t, \qquad
        \tfrac{K}{K - 1} \big(W_t - \tfrac{1}{K} \textstyle\sum_y W_y\big), \qquad
        W_t - W_{y^-}

    Args:
        weight: (K, C) class weights.
        target: (N,) or (N, T) int64 classes.
        method: ``"cam"``, ``"infocam"`` or ``"infocam+"``.
        reference: (N,) int64 least likely class, for ``"infocam+"`` alone.

    Returns:
        (N, C) or (N, T, C).

    Raises:
        ValueError: as :func:`class_map`.
        TypeError: as :func:`class_map`.

    Examples:
        >>> map_weight(torch.tensor([[3.0], [1.0], [0.0]]), torch.tensor([0, 2]))
        tensor([[ 2.5000],
                [-2.0000]])
    """
    check_choice("method", method, METHODS)
    _check_weight(weight)
    num_classes = len(weight)
    check_class_indices(target, num_classes)
    if (reference is not None) != (method == "infocam+"):
        raise ValueError(
            'reference must be given for method="infocam+" and for no other; '
            f"got method={method!r} and reference={'None' if reference is None else 'a tensor'}"
        )
    if method == "cam":
        return weight[target]
    if reference is not None:
        if reference.shape != target.shape[:1]:
            raise ValueError(
                f"reference must have shape {tuple(target.shape[:1])}, one class per example; "
                f"got {tuple(reference.shape)}"
            )
        check_class_indices(reference, num_classes)
        others = weight[reference]
        return weight[target] - (others.unsqueeze(1) if target.dim() == 2 else others)
    _check_two_classes(num_classes, "weight")
    # The mean over all classes costs no more for many examples, and what all rows share cancels
    # before anything is scaled.
    return (weight[target] - weight.mean(0)) * (num_classes / (num_classes - 1))


def window_reduce(
    maps: Tensor, window: int, *, padding: str = "same", reduction: str = "mean"
) -> Tensor:
    r"""Sum or average maps over a square window around every cell.

    .. math:: D(a, b) = \sum_{(a', b') \in R(a, b)} \mathrm{map}(a', b')

    Args:
        maps: (\*, h, w).
        window: side k of the window R in cells, at least 1.
        padding: ``"same"`` gives a value for every cell: cells beyond the map count as 0, and an
            even window reaches one cell further down and right. ``"valid"`` gives one for every
            window inside the map, (h - k + 1) x (w - k + 1) of them.
        reduction: ``"sum"``, or ``"mean"``: the sum over k * k, at the border too.

    Returns:
        (\*, h, w), or (\*, h - k + 1, w - k + 1) for ``"valid"``.

    Raises:
        ValueError: if a name or the window does not fit.

    Examples:
        >>> window_reduce(torch.tensor([[1.0, 2.0, 3.0]]), 3, reduction="sum")
        tensor([[3., 6., 5.]])
    """
    check_choice("padding", padding, PADDINGS)
    check_choice("reduction", reduction, REDUCTIONS)
    check_count("window", window)
    height, width = maps.shape[-2:]
    if padding == "valid" and window > min(height, width):
        raise ValueError(
            f'window must be at most the map\'s {height} x {width} cells with padding="valid"; '
            f"got {window}"
        )
    planes = maps.reshape(-1, 1, height, width)
    if padding == "same":
        before = (window - 1) // 2
        after = window - 1 - before
        planes = F.pad(planes, (before, after, before, after))
    divisor = 1 if reduction == "sum" else window * window
    reduced = F.avg_pool2d(planes, window, stride=1, divisor_override=divisor)
    return reduced.reshape(*maps.shape[:-2], *reduced.shape[-2:])


def logit_contrast(logits: Tensor) -> Tensor:
    r"""Return every class's logit less the mean of the others': what infoCAM spreads over cells.

    .. math:: s_t = n_t - \frac{1}{K - 1} \sum_{y \ne t} n_y

    Args:
        logits: (\*, K) logits n, or log-probabilities: what a row shares cancels.

    Returns:
        (\*, K); each row's sum is 0.

    Raises:
        ValueError: if there are fewer than two classes.
        TypeError: if the logits are not floating point.

    Examples:
        >>> logit_contrast(torch.tensor([3.0, 1.0, 0.0]))
        tensor([ 2.5000, -0.5000, -2.0000])
    """
    check_floating("logits", logits)
    num_classes = logits.shape[-1] if logits.dim() else 0
    _check_two_classes(num_classes, "logits")
    return (logits - logits.mean(-1, keepdim=True)) * (num_classes / (num_classes - 1))


def least_likely_class(logits: Tensor) -> Tensor:
    r"""Return :math:`\arg\min_y n_y`, the reference of infoCAM+.

    Args:
        logits: (\*, K).

    Returns:
        (\*) int64.

    Raises:
        ValueError: if a logit is NaN; the message names the row.

    Examples:
        >>> least_likely_class(torch.tensor([[3.0, -1.0, 0.0]]))
        tensor([1])
    """
    check_floating("logits", logits)
    broken = logits.isnan().any(-1)
    if bool(broken.any()):
        row = int(broken.flatten().nonzero()[0])
        raise ValueError(f"logits must not be NaN; row {row} is, and has no least likely class")
    return logits.argmin(-1)


def _check_shapes(features: Tensor, weight: Tensor, target: Tensor) -> None:
    check_floating("features", features)
    _check_weight(weight)
    if features.dim() != 4 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features must have shape (N, {weight.shape[1]}, h, w) to match weight "
            f"{tuple(weight.shape)}; got {tuple(features.shape)}"
        )
    if target.dim() not in (1, 2) or len(target) != len(features):
        raise ValueError(
            f"target must have shape ({len(features)},) or ({len(features)}, T), one class or "
            f"several per example; got {tuple(target.shape)}"
        )


def _check_weight(weight: Tensor) -> None:
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(
            f"weight must have shape (K, C), one row per class; got {tuple(weight.shape)}"
        )
    check_floating("weight", weight)


def _check_two_classes(num_classes: int, name: str) -> None:
    if num_classes < 2:
        raise ValueError(
            f"{name} must have at least 2 classes to hold one against the others; got {num_classes}"
        )
