"""New classes that start from their features instead of from noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import holds_integers
from lastlayer.functional.incremental.class_means import class_directions
from lastlayer.heads.base import Head
from lastlayer.heads.growth import check_plain_linear


def imprint(head: Head, features: Tensor, target: Tensor, classes: Tensor | Sequence[int]) -> None:
    r"""Set the classifier's rows of some classes to the mean direction of their features.

    .. math:: w_c = \bar\nu \, \frac{m_c}{\lVert m_c \rVert}, \qquad
        m_c = \frac{1}{n_c} \sum_{i: y_i = c} \frac{h_i}{\lVert h_i \rVert}, \qquad b_c = 0

    with :math:`\bar\nu` the mean norm of the rows of all other classes, or 1 if there are none. A
    cosine classifier (LDAM) does not see it. Branches besides the classifier, and what an optimizer
    remembers of the rows, stay as they are.

    Args:
        head: the head, changed in place; its parameters stay the same objects.
        features: (*, D) features that the head is going to be trained on.
        target: (*) integer labels; those of other classes play no part.
        classes: (C,) the classes to set, each once; normally those just added by
            :func:`lastlayer.heads.grow`.

    Raises:
        TypeError: if ``head`` is no head or a dtype does not fit.
        ValueError: if a shape does not fit, a class is unknown, named twice or has no example, a
            feature is not finite, or the classifier is reparametrized or hooked.

    Example:
        >>> from lastlayer.heads import Softmax, grow
        >>> head = Softmax(in_features=2, num_classes=2)
        >>> grow(head, 1)
        >>> imprint(head, torch.tensor([[0.0, 3.0], [0.0, 1.0]]), torch.tensor([2, 2]), [2])
        >>> torch.nn.functional.normalize(head.classifier.weight[2], dim=0).tolist()
        [0.0, 1.0]

    Source: LUCIR, which starts new rows from class means. That the directions of features are
    averaged, and scaled by the norm of the old rows, is from memory, not checked in the paper.
    """
    if not isinstance(head, Head):
        raise TypeError(f"head must be a lastlayer.heads.Head; got {type(head).__name__}")
    check_plain_linear("classifier", head.classifier)
    index = _checked_classes(classes, head.num_classes)
    head._check_features(features)
    if target.shape != features.shape[:-1]:
        raise ValueError(
            f"target must have shape {tuple(features.shape[:-1])} to match features "
            f"{tuple(features.shape)}; got {tuple(target.shape)}"
        )
    with torch.no_grad():
        rows = features.reshape(-1, head.in_features)
        directions = class_directions(rows, target.reshape(-1), index)
        parameter = head.classifier.weight
        others = torch.ones(head.num_classes, dtype=torch.bool)
        others[index] = False
        old = parameter[others.to(parameter.device)].to(directions.dtype)
        norms: Tensor = torch.linalg.vector_norm(old, dim=-1)
        scale = norms.mean().to(directions.device) if len(norms) else 1.0
        parameter[index.to(parameter.device)] = (scale * directions).to(parameter)
        if head.classifier.bias is not None:
            head.classifier.bias[index.to(parameter.device)] = 0.0


def _checked_classes(classes: Tensor | Sequence[int], num_classes: int) -> Tensor:
    """Return class indices on the CPU, or raise unless each is one of the head's, named once."""
    index = torch.as_tensor(classes).detach().cpu()
    if not index.numel():
        index = index.to(torch.int64)
    if not holds_integers(index):
        raise TypeError(f"classes must hold whole numbers; got dtype {index.dtype}")
    index = index.to(torch.int64)
    if index.dim() != 1 or len(set(index.tolist())) < len(index):
        raise ValueError(f"classes must have shape (C,), each class once; got {index.tolist()}")
    if len(index) and not bool(((index >= 0) & (index < num_classes)).all()):
        raise ValueError(f"classes must lie in [0, {num_classes - 1}]; got {index.tolist()}")
    return index
