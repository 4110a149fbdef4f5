"""A virtual step of gradient descent: how the loss after it depends on the weights before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lastlayer._checks import check_at_least
from lastlayer._inputs import Inputs, call, num_examples
from lastlayer.heads import Head


def virtual_meta_loss(
    module: nn.Module,
    inputs: Inputs,
    target: Tensor,
    weights: Tensor,
    meta_inputs: Inputs,
    meta_target: Tensor,
    *,
    lr: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return the loss on a meta batch after one virtual step on a weighted batch.

    .. math:: \tilde\theta = \theta - \frac{\eta}{B} \sum_i w_i \nabla_\theta \ell_i(\theta), \qquad
        L = \frac1M \sum_m -\log \mathrm{softmax}(o(x_m; \tilde\theta))_{y_m}

    The batch's losses are the head's own; on the meta batch it is the plain cross-entropy of the
    head's ``logits``. The step is plain gradient descent, without momentum and weight decay. The
    module itself, its modes, its gradients and its buffers stay as they are; while it runs, the
    module has the step's parameters, so that no other thread may use it.

    Args:
        module: a head, or a :class:`lastlayer.Classifier`; its parameters that require a gradient
            are the :math:`\theta`.
        inputs: (B, D) features of the batch for a head; for a classifier its inputs, B rows each: a
            tensor, a tuple of them for several arguments, a mapping of names to them for keywords.
        target: (B,) int64 labels.
        weights: (B,) weights w through which the gradient is to go.
        meta_inputs: as ``inputs``, with M rows.
        meta_target: (M,) int64 labels.
        lr: step size :math:`\eta`, at least 0.
        generator: source of a stochastic head's draws; the default generator if None.

    Returns:
        A scalar, differentiable with respect to ``weights``.

    Raises:
        TypeError: if ``module`` is another one, or inputs are neither tensors nor made of them.
        ValueError: if the weights or the numbers of rows do not fit, ``lr`` is below 0, or nothing
            can be trained.

    Example:
        >>> from lastlayer.heads import Softmax
        >>> head, weights = Softmax(4, 3), torch.ones(5, requires_grad=True)
        >>> features, target = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
        >>> loss = virtual_meta_loss(head, features, target, weights, features, target, lr=0.1)
        >>> torch.autograd.grad(loss, weights)[0].shape
        torch.Size([5])

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
    """
    check_at_least("lr", lr, 0.0)
    if weights.shape != target.shape or target.dim() != 1:
        raise ValueError(
            "target and weights must have shape (B,); "
            f"got {tuple(target.shape)} and {tuple(weights.shape)}"
        )
    for name, given, size in (
        ("inputs", inputs, len(target)),
        ("meta_inputs", meta_inputs, len(meta_target)),
    ):
        if num_examples(given, name) != size:
            raise ValueError(
                f"{name} must have one row per label, {size}; got {num_examples(given, name)}"
            )
    view = _View(module)
    trained = {n: p for n, p in view.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("module must have a parameter that requires a gradient; it has none")
    # Copies, for a head or backbone may count in its buffers.
    fixed = {name: buffer.clone() for name, buffer in view.named_buffers()}

    def call(parameters: Mapping[str, Tensor], *arguments: Any) -> Any:
        return functional_call(view, (dict(parameters), fixed), arguments)

    rows = call(trained, inputs, target, generator)
    loss = (weights * rows).sum() / len(target)
    gradients = torch.autograd.grad(
        loss, list(trained.values()), create_graph=True, allow_unused=True
    )
    moved = {
        name: parameter.detach() if gradient is None else parameter.detach() - lr * gradient
        for (name, parameter), gradient in zip(trained.items(), gradients, strict=True)
    }
    return F.cross_entropy(call(moved, meta_inputs), meta_target)


def row_losses(
    module: nn.Module,
    inputs: Inputs,
    target: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return a head's loss of every row, whatever its reduction.

    It is a call like any other: modules keep their modes, and in training mode batch normalization
    and the counts of a learned proposal take note of the batch.

    Args:
        module: a head, or a :class:`lastlayer.Classifier`.
        inputs: (B, D) features for a head; for a classifier as of :func:`virtual_meta_loss`.
        target: (B,) int64 labels.
        generator: source of a stochastic head's draws; the default generator if None.

    Returns:
        (B,) losses, all terms added.

    Raises:
        TypeError: if ``module`` is another one, or inputs are neither tensors nor made of them.

    Example:
        >>> from lastlayer.heads import Softmax
        >>> row_losses(Softmax(4, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])).shape
        torch.Size([5])
    """
    rows: Tensor = _View(module)(inputs, target, generator)
    return rows


class _View(nn.Module):
    """A head's losses by row, or its logits without a target: what ``functional_call`` can call."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        head = getattr(module, "head", module)
        if not isinstance(getattr(head, "_orig_mod", head), Head):
            raise TypeError(
                "module must be a head or a Classifier, not in a wrapper such as DataParallel; "
                f"got {type(module).__name__}"
            )
        self.module = module  # whose mode stays: parts of it may be in another one

    def forward(
        self,
        inputs: Inputs,
        target: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        module: Any = self.module
        is_head = not hasattr(module, "backbone")
        head = module if is_head else module.head
        features = inputs if is_head else call(module.features, inputs)
        if target is None:
            return head.logits(features)  # type: ignore[no-any-return]
        head = getattr(head, "_orig_mod", head)  # what a compiled one stands for
        # Without its reduction: another head that shares its parameters and all else, for to change
        # this one's own would change the losses of other threads meanwhile.
        twin = head.__new__(type(head))
        twin.__dict__.update(head.__dict__, reduction="none")
        return twin(features, target, generator=generator).loss  # type: ignore[no-any-return]
