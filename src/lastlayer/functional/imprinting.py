"""Class directions from features: what a classifier's row may start from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_finite, check_floating, check_labels


def class_directions(features: Tensor, target: Tensor, classes: Tensor) -> Tensor:
    r"""Mean direction of the features of each class.

    .. math:: u_c = \frac{m_c}{\lVert m_c \rVert}, \qquad
        m_c = \frac{1}{n_c} \sum_{i: y_i = c} \frac{h_i}{\lVert h_i \rVert}

    Args:
        features: (N, D) floating point; half precision is computed in float32.
        target: (N,) integer labels; those of other classes play no part.
        classes: (C,) int64 class indices.

    Returns:
        (C, D) unit vectors in float32, or float64 for such features.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape does not fit, a feature is not finite, a class has no example, or its
            directions cancel out.

    Example:
        >>> features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
        >>> class_directions(features, torch.tensor([0, 1, 1]), torch.tensor([1, 0]))
        tensor([[0., 1.],
                [1., 0.]])
    """
    check_floating("features", features)
    if features.dim() != 2:
        raise ValueError(f"features must have shape (N, D); got {tuple(features.shape)}")
    check_labels("target", target, len(features))
    check_finite("features", features)
    exact = features if features.dtype == torch.float64 else features.float()
    directions = F.normalize(exact, dim=-1)
    means = exact.new_zeros(len(classes), exact.shape[1])
    for row, label in enumerate(classes.tolist()):
        of_class = directions[target == label]
        if not len(of_class):
            raise ValueError(f"target must have an example of every class; class {label} has none")
        means[row] = of_class.mean(dim=0)
    norms: Tensor = torch.linalg.vector_norm(means, dim=-1, keepdim=True)
    vanished = (norms.squeeze(-1) <= 4 * torch.finfo(exact.dtype).eps).nonzero()
    if len(vanished):
        label = int(classes[int(vanished[0])])
        raise ValueError(f"features of class {label} must have a mean direction; theirs cancel out")
    return means / norms
