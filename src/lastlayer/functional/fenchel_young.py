r"""Fenchel-Young losses: one construction from a regularized argmax to its classification loss.

A regularizer :math:`\Omega` on the simplex gives a map from logits to probabilities and a loss,

.. math::
    \hat p(o) = \arg\max_{p \in \Delta} \langle p, o\rangle - \Omega(p), \qquad
    L(o; y) = \Omega^*(o) + \Omega(y) - \langle o, y\rangle,

that is convex in o, at least 0, 0 exactly where :math:`\hat p(o) = y`, and has the gradient
:math:`\hat p(o) - y`. Every loss of this file comes out of :func:`make_fenchel_young_loss`.

Reference: Blondel, Martins and Niculae, "Learning with Fenchel-Young Losses", JMLR 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Unpack

import torch
from torch import Tensor

from lastlayer._checks import check_at_least
from lastlayer.functional.autograd import Function
from lastlayer.functional.entmax import entmax, tsallis_negentropy
from lastlayer.functional.layout import flatten_target, float_rows
from lastlayer.functional.loss_arguments import LossArguments, explained, weighted_targets

RowFunction = Callable[[Tensor], Tensor]


class FenchelYoungLoss(Protocol):
    """Signature of the losses that :func:`make_fenchel_young_loss` makes."""

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Return the reduced loss."""


def make_fenchel_young_loss(
    argmax: RowFunction,
    regularizer: RowFunction,
    *,
    conjugate: RowFunction | None = None,
    zero_at_target: bool = True,
) -> FenchelYoungLoss:
    r"""Build the loss that belongs to a regularized argmax.

    The returned function has the signature, tensor layouts and reductions of
    ``torch.nn.functional.cross_entropy``: logits (K,), (N, K) or (N, K, d1, ...); class indices
    without the class dimension, or class probabilities of the shape of the logits; a class weight
    multiplies the target distribution. Two deviations: the mean over no row at all is 0, and half
    precision is computed and returned in float32. First and second derivatives are exact.

    Args:
        argmax: (M, K) logits to (M, K) probabilities; differentiable, and unchanged when a
            constant is added to a row.
        regularizer: (M, K) probabilities to (M,) values of :math:`\Omega`; convex, and 0 at the
            corners of the simplex, as every negative entropy is.
        conjugate: (M, K) logits to (M,) values of :math:`\Omega^*`, where a closed form is better
            than the default :math:`\langle \hat p, o\rangle - \Omega(\hat p)`.
        zero_at_target: include :math:`\Omega(y)`. It matters for soft targets only: with it the
            smallest loss is 0, without it the loss is a cross entropy in torch's sense.

    Returns:
        The loss function.

    Examples:
        >>> loss = make_fenchel_young_loss(
        ...     argmax=lambda o: o.softmax(-1), regularizer=lambda p: torch.xlogy(p, p).sum(-1)
        ... )
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2395)

    References:
        Blondel, Martins and Niculae, "Learning with Fenchel-Young Losses", JMLR 2020, eq. 14.
    """

    def conjugate_of(rows: Tensor) -> Tensor:
        p = argmax(rows)
        with torch.no_grad():
            if conjugate is not None:
                value = conjugate(rows)
            else:
                value = (p * torch.where(p > 0, rows, 0.0)).sum(-1) - regularizer(p)
        function = _Conjugate if torch.compiler.is_compiling() else _EagerConjugate
        result: Tensor = function.apply(rows, p, value)  # type: ignore[no-untyped-call]
        return result

    def loss(
        logits: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        rows = float_rows(logits)
        rows = rows - rows.detach().amax(-1, keepdim=True)  # the loss does not see a shift
        targets = weighted_targets(
            rows, flatten_target(target, logits), weight, ignore_index, label_smoothing
        )
        values = targets.mass * conjugate_of(rows) - targets.score
        if zero_at_target and targets.probabilities is not None:
            values = values + targets.mass * regularizer(targets.probabilities)
        return targets.reduced(values, logits, reduction)

    return loss


class _Conjugate(Function):
    """The conjugate as a function of the logits, with p itself as its gradient.

    p comes in as an argument with its own graph, so that the backward, grad * p, differentiates
    again into the Jacobian of the argmax; the first-order pass never enters that graph.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, p: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (p,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * p, None, None


class _EagerConjugate(_Conjugate):
    """The same with forward mode, whose rule torch.compile refuses."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        _Conjugate.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Tensor | None) -> Tensor:
        (p,) = ctx.saved_tensors
        slope: Tensor = (p * tangent).sum(-1)
        return slope


# --- the family --------------------------------------------------------------------------------


def make_entmax_loss(alpha: float) -> FenchelYoungLoss:
    """Build the Fenchel-Young loss of alpha-entmax; see :func:`entmax_loss`."""
    check_at_least("alpha", alpha, 1.0)
    return make_fenchel_young_loss(
        argmax=lambda rows: entmax(rows, alpha),
        regularizer=lambda p: tsallis_negentropy(p, alpha),
        conjugate=(lambda rows: rows.logsumexp(-1)) if alpha == 1.0 else None,
    )


_COMMON_DOC = r"""{summary}

    .. math:: {formula}

    Args:
        logits: {{logits}}
        target: {{target}}
        **arguments: {{arguments}}

    Returns:
        A scalar, or one value per row for ``"none"``.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a class index or an option does not fit.

    Examples:
        >>> {name}(torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([1]))
        {example}

    References:
        {source}
    """


def _named(loss: FenchelYoungLoss, name: str, **doc: str) -> FenchelYoungLoss:
    """Give a made loss its public name and docstring."""
    loss.__name__ = loss.__qualname__ = name  # type: ignore[attr-defined]
    loss.__doc__ = _COMMON_DOC.format(name=name, **doc)
    return explained(loss)


cross_entropy = _named(
    make_fenchel_young_loss(
        argmax=lambda rows: rows.softmax(-1),
        regularizer=lambda p: tsallis_negentropy(p, 1.0),
        conjugate=lambda rows: rows.logsumexp(-1),
        zero_at_target=False,
    ),
    "cross_entropy",
    summary="Cross entropy, the Fenchel-Young loss of softmax; equal to torch's.",
    formula=r"L(o; y) = \log \sum_k e^{o_k} - \langle o, y\rangle",
    example="tensor(1.0550)",
    source='Blondel, Martins and Niculae, "Learning with Fenchel-Young Losses", JMLR 2020.',
)

sparsemax_loss = _named(
    make_entmax_loss(2.0),
    "sparsemax_loss",
    summary="Sparsemax loss: 0 as soon as the target leads every other logit by 1.",
    formula=r"L(o; t) = \tfrac12 \sum_{k: p_k > 0} (o_k^2 - \tau^2) + \tfrac12 - o_t",
    example="tensor(0.5625)",
    source='Martins and Astudillo, "From Softmax to Sparsemax", ICML 2016, eq. 18.',
)

entmax15_loss = _named(
    make_entmax_loss(1.5),
    "entmax15_loss",
    summary="1.5-entmax loss: 0 as soon as the target leads every other logit by 2.",
    formula=r"L(o; y) = \Omega_{1.5}^*(o) + \Omega_{1.5}(y) - \langle o, y\rangle",
    example="tensor(0.6844)",
    source='Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, eq. 11.',
)


@explained
def entmax_loss(
    logits: Tensor, target: Tensor, alpha: float, **arguments: Unpack[LossArguments]
) -> Tensor:
    r"""Alpha-entmax loss: 0 as soon as the target leads every other logit by 1 / (alpha - 1).

    .. math:: L(o; y) = \Omega_\alpha^*(o) + \Omega_\alpha(y) - \langle o, y\rangle

    Args:
        logits: {logits}
        target: {target}
        alpha: at least 1; 1 is the cross entropy (the Kullback-Leibler divergence for soft
            targets), 2 the sparsemax loss.
        **arguments: {arguments}

    Returns:
        A scalar, or one value per row for ``"none"``.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if ``alpha``, a shape, a class index or an option does not fit.

    Examples:
        >>> entmax_loss(torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([1]), alpha=2.0)
        tensor(0.5625)

    References:
        Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, eq. 11.
    """
    return make_entmax_loss(alpha)(logits, target, **arguments)
