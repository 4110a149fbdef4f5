"""More classes for a head that exists: old rows stay bit for bit, new ones are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lastlayer._checks import check_class_weight, check_whole
from lastlayer.functional.class_priors import as_class_counts
from lastlayer.heads.base import Head
from lastlayer.heads.interface import NewClasses
from lastlayer.heads.linear import (
    call_hooks,
    init_branch_rows,
    init_classifier_rows,
    parameter_hooks,
)
from lastlayer.heads.optimizer_state import Renewed, padded_states, replace_parameters


def grow(
    head: Head,
    num_new: int,
    *,
    class_counts: Tensor | Sequence[float] | None = None,
    weight: Tensor | None = None,
    init_classifier: Callable[[nn.Linear], None] | None = None,
    generator: torch.Generator | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    r"""Add classes at the end of a head, in place.

    The rows of the old classes in the classifier and in every branch stay bit for bit, and so the
    logits of old classes, but for the last bits of a matrix product that sums in another order when
    its size changes. The new rows are drawn as in a fresh head of the new size. What else depends
    on the number of classes follows as if the head had been built with it: class weights, margins,
    label counts (new ones start at 1), a share of the classes, a default. The kind of head does not
    change, also where ``recommended`` would choose another one.

    The parameters are new objects without gradients: grow between steps, and before wrapping the
    head for several processes; there the same ``generator`` seed draws the same rows. With an
    ``optimizer`` they take the places of the old ones, and its state gets zero rows. Adam counts
    steps per parameter, so that its correction of the first steps is over for the new rows as well:
    their first step is up to :math:`(1 - \beta_1) / \sqrt{1 - \beta_2}` learning rates, 3.2 by
    default.

    Args:
        head: the head; as before if an error is raised.
        num_new: how many classes to add, m at least 0. With 0 only the counts change.
        class_counts: (K + m,) how often each class, old or new, occurs in what is trained on next.
            Needed by heads that keep counts, else checked and not used.
        weight: (m,) class weights of the new classes, for a head that has some; None for 1.
        init_classifier: called on an ``nn.Linear`` of the m new rows of the classifier, drawn
            already, before they are appended.
        generator: source of the new rows; the default generator if None.
        optimizer: an optimizer of the head's parameters, or of some of them.

    Raises:
        TypeError: if ``head`` is no head or a dtype does not fit.
        ValueError: if an argument does not fit, a linear layer is reparametrized, hooked or shared,
            the head has a tensor of one entry per class that it does not know how to grow, or
            the optimizer a state that cannot be padded.

    Example:
        >>> from lastlayer.heads import BalancedSoftmax
        >>> head = BalancedSoftmax(in_features=8, num_classes=2, class_counts=[50, 50])
        >>> grow(head, 1, class_counts=[5, 5, 50])
        >>> head.log_prob(torch.randn(4, 8)).shape
        torch.Size([4, 3])
    """
    layers = _per_class_layers(head)
    new = _checked(head, num_new, class_counts, weight)
    if not new.number and class_counts is None:
        return
    old_classes = head.num_classes
    with _as_before_on_error(head):
        head.num_classes = old_classes + new.number
        head._grow_class_state(new)
        if not new.number:
            return
        _refuse_unknown(head, layers, old_classes)
        renewed: list[Renewed] = []
        for layer in layers:
            rows = _drawn_rows(head, layer, new.number, generator)
            if layer is head.classifier and init_classifier is not None:
                init_classifier(rows)
            renewed += _appended(layer, rows)
        states = [] if optimizer is None else padded_states(optimizer, renewed)
    for layer in layers:
        layer.out_features = head.num_classes
    for parameter in renewed:
        setattr(parameter.layer, parameter.name, parameter.new)
    if optimizer is not None:
        replace_parameters(optimizer, renewed, states)


def set_class_counts(head: Head, class_counts: Tensor | Sequence[float]) -> None:
    """Give a head new class counts, and bring what was computed from the old ones up to date.

    For a new task, or a class seen again. A head that keeps no counts stays as it is, so that one
    loop serves every head. Deferred weights (LDAM) start anew with the early ones, until
    ``head.set_progress`` is called.

    Args:
        head: the head.
        class_counts: (K,) how often each class occurs in what is trained on next.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or number does not fit; the head is as before then.

    Example:
        >>> from lastlayer.heads import ClassBalanced
        >>> head = ClassBalanced(8, 2, class_counts=[10, 10], beta=1.0)
        >>> set_class_counts(head, [30, 10])
        >>> head.weight
        tensor([0.5000, 1.5000])
    """
    grow(head, 0, class_counts=class_counts)


def check_plain_linear(name: str, layer: nn.Module) -> None:
    """Raise ``ValueError`` unless ``layer`` is a linear layer whose rows may be changed."""
    if type(layer) is not nn.Linear or not isinstance(layer._parameters.get("weight"), Tensor):
        raise ValueError(
            f"{name} must be a plain nn.Linear, whose rows are its parameters; "
            f"got {type(layer).__name__} with {', '.join(layer._parameters)}: "
            "remove the parametrization first"
        )
    hooks = call_hooks(layer) + parameter_hooks(layer)
    if hooks:
        raise ValueError(
            f"{name} must have no hooks, which may rely on its size; got {', '.join(hooks)}: "
            "remove them first"
        )


def _per_class_layers(head: Head) -> list[nn.Linear]:
    """Return the linear layers with one output per class, each checked."""
    if not isinstance(head, Head):
        raise TypeError(f"head must be a lastlayer.heads.Head; got {type(head).__name__}")
    layers = {"classifier": head.classifier, **head.branches()}
    layers = {name: x for name, x in layers.items() if x.out_features == head.num_classes}
    for name, layer in layers.items():
        check_plain_linear(name, layer)
    own = [id(p) for layer in layers.values() for p in layer.parameters()]
    if len(set(own)) < len(own):
        raise ValueError(f"{', '.join(layers)} must not share parameters; untie them first")
    return list(layers.values())


def _checked(
    head: Head,
    num_new: int,
    class_counts: Tensor | Sequence[float] | None,
    weight: Tensor | None,
) -> NewClasses:
    check_whole("num_new", num_new, 0)
    total = head.num_classes + num_new
    if head.num_classes <= head.ignore_index < total:
        raise ValueError(
            f"ignore_index={head.ignore_index} would be one of the new classes "
            f"{head.num_classes} to {total - 1}; set head.ignore_index to another number"
        )
    check_class_weight(weight, num_new)
    if class_counts is not None:
        given = class_counts.detach().cpu() if isinstance(class_counts, Tensor) else class_counts
        as_class_counts(given, total, zero_counts="mask")
    return NewClasses(num_new, class_counts, weight)


@contextmanager
def _as_before_on_error(head: Head) -> Iterator[None]:
    """Put the head's attributes and buffers back if what is inside raises."""
    attributes, buffers = dict(vars(head)), dict(head._buffers)
    try:
        yield
    except BaseException:
        vars(head).update(attributes)
        head._buffers.clear()
        head._buffers.update(buffers)
        raise


def _refuse_unknown(head: Head, layers: list[nn.Linear], old_classes: int) -> None:
    """Raise if a tensor of the head still has one entry per old class; a single one is no sign."""
    own = {id(p) for layer in layers for p in layer.parameters()}
    for name, tensor in (*head.named_parameters(), *head.named_buffers()):
        if id(tensor) in own or name in head.not_per_class or old_classes == 1:
            continue
        if tensor.dim() and len(tensor) == old_classes:
            kind = type(head).__name__
            raise ValueError(
                f"{kind} has {name!r} of shape {tuple(tensor.shape)}, perhaps one entry for each "
                f"of the {old_classes} classes, and does not say how it grows: list a linear layer "
                f"in {kind}.branches, let {kind}._grow_class_state bring another tensor to the new "
                f"number of classes, or name it in {kind}.not_per_class to leave it as it is"
            )


def _drawn_rows(
    head: Head, layer: nn.Linear, num_new: int, generator: torch.Generator | None
) -> nn.Linear:
    """Return a layer of new rows as a fresh head of the new size would have them."""
    rows = nn.Linear(
        layer.in_features,
        num_new,
        bias=layer.bias is not None,
        device="meta",  # a real device would draw once more, from the default generator
        dtype=layer.weight.dtype,
    ).to_empty(device=layer.weight.device)
    if layer is head.classifier:
        init_classifier_rows(rows, generator)
    else:
        init_branch_rows(rows, head.num_classes, generator)
    return rows


def _appended(layer: nn.Linear, rows: nn.Linear) -> list[Renewed]:
    """Return the layer's parameters beside those with the new rows behind."""
    renewed = []
    for name, old in layer.named_parameters():
        both = torch.cat([old.detach(), rows.get_parameter(name).detach()])
        new = nn.Parameter(both, requires_grad=old.requires_grad)
        renewed.append(Renewed(layer, name, old, new))
    return renewed
