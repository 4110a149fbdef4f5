"""Which gradient every term of a head's loss sends where."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from lastlayer.heads import Head, HeadOutput


class TermGradient(NamedTuple):
    """Sizes of the gradient of one term.

    Attributes:
        features: mean over rows of the norm of the row's gradient by its features: what reaches
            the network below.
        classifier: norm of the mean gradient by the class weights.
    """

    features: float
    classifier: float


def term_gradients(
    head: Head, features: Tensor, target: Tensor, *, generator: torch.Generator | None = None
) -> dict[str, TermGradient]:
    """Measure the gradients of every term of a head's loss, and of their sum ``"loss"``.

    Args:
        head: the head; its loss is taken as it trains, with ``reduction="mean"``.
        features: (N, D).
        target: (N,) int64 class indices.
        generator: source of a stochastic head's draws.

    Returns:
        Sizes by term.

    Raises:
        ValueError: if the head does not reduce by the mean.
        TypeError: if the classifier's weight is not a parameter (parametrized, quantized).

    Example:
        >>> from lastlayer.heads import DropMax
        >>> found = term_gradients(DropMax(4, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
        >>> sorted(found)
        ['auxiliary', 'entropy', 'kl', 'loss', 'nll']
    """
    if head.reduction != "mean":
        raise ValueError(f'term_gradients needs reduction="mean"; got {head.reduction!r}')
    if not isinstance(head.classifier._parameters.get("weight"), Tensor):
        raise TypeError(
            "term_gradients needs head.classifier.weight to be a parameter; got a "
            f"{type(head.classifier).__name__} that computes it: take its gradient yourself"
        )
    leaf = features.detach().requires_grad_()
    # Copies, for a head may count labels in its buffers.
    buffers = {name: buffer.clone() for name, buffer in head.named_buffers()}
    with torch.enable_grad():
        out = functional_call(head, buffers, (leaf, target), {"generator": generator})
        if not isinstance(out, HeadOutput):
            raise TypeError("the head returned no loss for a batch with a target")
    found = {}
    for name, term in {**out.terms, "loss": out.loss}.items():
        by_features, by_weight = torch.autograd.grad(
            term,
            (leaf, head.classifier.weight),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        per_row = len(leaf) * torch.linalg.vector_norm(by_features, dim=-1)
        by_weight = torch.linalg.vector_norm(by_weight)
        found[name] = TermGradient(float(per_row.mean()), float(by_weight))
    return found
