"""Argument checks of every room: each error names the argument, what was expected, what came."""

from __future__ import annotations

import difflib
import inspect
import numbers
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import TypeIs

REDUCTIONS = ("none", "mean", "sum")
_PLAIN = (Tensor, nn.Parameter)
_NUMBERS = (numbers.Real, torch.SymInt, torch.SymFloat)


def in_torch_func() -> bool:
    """Return whether a transform of ``torch.func`` (vmap, grad, jvp ...) is at work."""
    return torch._C._are_functorch_transforms_active()


def in_backward() -> bool:
    """Return whether a backward pass runs this code, as activation checkpointing runs forward."""
    return torch._C._current_graph_task_id() != -1


def can_look(*tensors: Tensor, wait: bool = False) -> bool:
    """Return whether code may depend on the numbers in tensors; every check of values asks here.

    It may not while compiling or exporting, under a transform of ``torch.func``, or where there are
    no numbers (meta and fake tensors). On an accelerator it would wait for the device, which only
    construction does, with ``wait``.
    """
    if torch.compiler.is_compiling() or in_torch_func():
        return False
    return all(
        type(tensor) in _PLAIN and (tensor.device.type == "cpu" or (wait and not tensor.is_meta))
        for tensor in tensors
    )


def check_generator(generator: torch.Generator | None) -> None:
    """Raise ``RuntimeError`` where a recomputation would draw other numbers than its forward pass.

    Checkpointing restores torch's default generators alone. Everything that draws numbers for a
    forward pass asks here.
    """
    if generator is not None and not torch.compiler.is_compiling() and in_backward():
        raise RuntimeError(
            "generator must be None where a backward pass runs the forward again, as "
            "torch.utils.checkpoint does: the generator given has moved on and would draw other "
            "numbers, for wrong gradients; leave it out, for torch's default generator is "
            "restored, or pass the noise itself where the function takes it"
        )


def is_number(value: object) -> TypeIs[float]:
    """Return whether ``value`` is a real number of Python or NumPy, NaN among them, and no bool."""
    if type(value) is float or type(value) is int:
        return True
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


def check_number(name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a real number of Python or NumPy, and no bool."""
    if not is_number(value):
        raise TypeError(f"{name} must be a number; got {_shown(value)}")


def is_whole(value: object) -> TypeIs[int]:
    """Return whether ``value`` is an integer of Python or NumPy, and no bool."""
    if type(value) is int:
        return True
    return isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool)


def check_ignore_index(ignore_index: object) -> None:
    """Raise ``TypeError`` unless ``ignore_index`` is an integer of Python or NumPy, and no bool."""
    if not is_whole(ignore_index):
        raise TypeError(f"ignore_index must be an integer; got {_shown(ignore_index)}")


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{value!r} of type {type(value).__name__}"


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {listed}; got {value!r}")


def check_positive(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above zero."""
    check_number(name, value)
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0; got {value!r}")


def check_at_least(name: str, value: float, minimum: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number of at least ``minimum``."""
    check_number(name, value)
    if not minimum <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of at least {minimum}; got {value!r}")


def check_probability(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` lies in [0, 1]."""
    check_number(name, value)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1]; got {value!r}")


def check_class_weight(weight: Tensor | None, num_classes: int, *, wait: bool = False) -> None:
    """Raise unless ``weight`` is None or a tensor of one finite weight >= 0 per class.

    On an accelerator the numbers are looked at only if ``wait``, which construction does.
    """
    if weight is None:
        return
    check_tensor("weight", weight)
    if weight.shape != (num_classes,):
        raise ValueError(
            f"weight must have shape ({num_classes},), one weight per class; "
            f"got {tuple(weight.shape)}"
        )
    if not can_look(weight, wait=wait):
        return
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise ValueError(
            "weight must hold finite numbers of at least 0; got a negative, infinite or NaN entry"
        )


def check_last_dim(name: str, tensor: Tensor, size: int) -> None:
    """Raise ``ValueError`` unless the last dimension of ``tensor`` has ``size`` entries."""
    if tensor.dim() == 0 or tensor.shape[-1] != size:
        raise ValueError(f"{name} must have shape (*, {size}); got {tuple(tensor.shape)}")


def check_tensor(name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(value).__name__}")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise ``TypeError`` unless ``tensor`` is a tensor of a floating-point dtype."""
    check_tensor(name, tensor)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype; got {tensor.dtype}")


def check_class_indices(target: Tensor, num_classes: int, ignore_index: int | None = None) -> bool:
    """Raise unless ``target`` holds int64 class indices in [0, num_classes) or ``ignore_index``.

    Returns whether every row is known to hold a class index other than ``ignore_index``.

    The range is looked at on the CPU only: on an accelerator it would force a synchronisation in
    every step, and while compiling it would break the graph; there the device's own assert speaks.
    """
    if target.dtype != torch.int64:
        raise TypeError(f"target must hold int64 class indices; got dtype {target.dtype}")
    if target.numel() == 0 or not can_look(target):
        return False
    smallest, largest = (int(bound) for bound in target.aminmax())
    if smallest >= 0 and largest < num_classes:
        return ignore_index is None or not 0 <= ignore_index < num_classes
    outside = (target < 0) | (target >= num_classes)
    if ignore_index is not None:
        outside = outside & (target != ignore_index)
    if bool(outside.any()):
        admitted = "" if ignore_index is None else f" or equal ignore_index={ignore_index}"
        raise ValueError(
            f"target must lie in [0, {num_classes - 1}]{admitted}; got {int(target[outside][0])}"
        )
    return False


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the question whether the nearest known name was meant, or nothing if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def options_refused(
    what: str, factory: Callable[..., object], options: Iterable[str], error: TypeError
) -> ValueError:
    """Return the error for options that a factory did not take; it asks what may have been meant.

    ``what`` is the part's name, ``error`` what the call raised. What a class passes on as
    ``**kwargs`` is looked up in its bases.
    """
    factory = factory.func if isinstance(factory, partial) else factory
    owner = getattr(factory, "__self__", factory)
    makers = [factory]
    if isinstance(owner, type):
        makers += [
            vars(base)["__init__"] for base in owner.__mro__[:-1] if "__init__" in vars(base)
        ]
    known = {name for maker in makers for name in inspect.signature(maker).parameters}
    near = [did_you_mean(option, sorted(known)) for option in options if option not in known][:1]
    question = "" if "Did you mean" in str(error) else "".join(near)  # Python 3.13 asks too
    return ValueError(
        f"{what} does not take the options {options}: {error}" + (question and f".{question}")
    )


def check_options(what: str, function: Callable[..., object], options: Iterable[str]) -> None:
    """Raise ``ValueError`` unless every option is a keyword-only argument of ``function``."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            listed = ", ".join(known) if known else "none"
            near = did_you_mean(option, known)
            listed += f".{near}" if near else ""
            raise ValueError(f"{what} has no option {option!r}; its options: {listed}")


def check_rate(name: str, value: float | Tensor) -> None:
    """Raise ``ValueError`` unless ``value`` is a number in [0, 1] or a 0-d tensor, not looked at.

    A tensor's value is not asked for: on an accelerator that would wait for the device, and while
    compiling it would break the graph.
    """
    if not isinstance(value, Tensor):
        check_probability(name, value)
    elif value.dim() != 0:
        raise ValueError(f"{name} must be a number or a 0-d tensor; got {tuple(value.shape)}")


def check_inside(name: str, value: float, low: float, high: float) -> None:
    """Raise ``ValueError`` unless ``value`` lies strictly between ``low`` and ``high``."""
    check_number(name, value)
    if not low < value < high:
        raise ValueError(f"{name} must lie in ({low:g}, {high:g}); got {value!r}")


def check_channel_dim(channel_dim: int) -> None:
    """Raise ``ValueError`` unless the channels are dimension 1 or the last one, -1."""
    if channel_dim not in (1, -1):
        raise ValueError(
            "channel_dim must be 1, channels first as in (N, C, H, W), or -1, channels last as in "
            f"(N, H, W, C) and (N, T, C); got {channel_dim!r}"
        )


def check_count(name: str, value: int) -> None:
    """Raise ``ValueError`` unless ``value`` is a whole number of at least 1."""
    check_whole(name, value, 1)


def check_prior(
    name: str, prior: Tensor, num_classes: int | None = None, *, wait: bool = True
) -> None:
    """Raise unless ``prior`` holds one probability per class, of sum 1 but for rounding.

    On an accelerator the numbers are not looked at without ``wait``, as in a training step.
    """
    check_floating(name, prior)
    if (
        prior.dim() != 1
        or not len(prior)
        or (num_classes is not None and len(prior) != num_classes)
    ):
        wanted = "K" if num_classes is None else num_classes
        raise ValueError(
            f"{name} must have shape ({wanted},), one probability per class; "
            f"got {tuple(prior.shape)}"
        )
    if not can_look(prior, wait=wait):
        return
    total = float(prior.detach().double().sum())
    tolerance = 1e-4 if prior.dtype in (torch.float32, torch.float64) else 1e-2
    if not (abs(total - 1.0) <= tolerance and bool((prior >= 0).all())):
        raise ValueError(
            f"{name} must hold probabilities of sum 1, not counts; got smallest entry "
            f"{float(prior.min()):g} and sum {total:g}"
        )


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ``ValueError`` unless every entry of ``tensor`` is finite."""
    wrong = int((~torch.isfinite(tensor)).sum())
    if wrong:
        raise ValueError(f"{name} must be finite; got {wrong} NaN or infinite of {tensor.numel()}")


def check_labeled_features(features: Tensor, target: Tensor) -> None:
    """Raise unless ``features`` is (N, D), finite, and ``target`` (N,) integers, with N >= 2."""
    check_matrix("features", features)
    check_labels("target", target, len(features))
    if len(features) < 2:
        raise ValueError(f"features must hold at least 2 examples; got {len(features)}")
    check_finite("features", features)


def as_label_tensor(name: str, labels: object) -> Tensor:
    """Return labels in a tensor, an array or a list as a tensor; raise ``TypeError`` for others."""
    if isinstance(labels, Tensor):
        return labels
    try:
        if not isinstance(labels, Sequence) and not hasattr(labels, "__array__"):
            raise TypeError("a data set would be read whole")
        found = np.asarray(labels)
        return torch.as_tensor(found if found.size else found.astype(np.int64))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must hold integer labels, in a tensor, an array or a list; "
            f"got {type(labels).__name__} {repr(labels)[:40]}"
        ) from error


def holds_integers(tensor: Tensor) -> bool:
    """Return whether the dtype of ``tensor`` is one of whole numbers; bool is none."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def check_labels(name: str, labels: Tensor, num_examples: int) -> None:
    """Raise unless ``labels`` holds one integer for each of ``num_examples`` examples."""
    if not holds_integers(labels):
        raise TypeError(f"{name} must hold integer labels; got dtype {labels.dtype}")
    if labels.shape != (num_examples,):
        raise ValueError(
            f"{name} must have shape ({num_examples},), one label per example; "
            f"got {tuple(labels.shape)}"
        )


def check_whole(name: str, value: int, minimum: int, maximum: int | None = None) -> None:
    """Raise ``ValueError`` unless ``value`` is a whole number of [minimum, maximum]."""
    if not is_whole(value) or value < minimum or (maximum is not None and value > maximum):
        wanted = f"of at least {minimum}" if maximum is None else f"in [{minimum}, {maximum}]"
        raise ValueError(f"{name} must be a whole number {wanted}; got {value!r}")


def check_matrix(name: str, tensor: Tensor) -> None:
    """Raise unless ``tensor`` is floating point of shape (N, D) with D >= 1."""
    check_floating(name, tensor)
    if tensor.dim() != 2 or tensor.shape[1] == 0:
        raise ValueError(f"{name} must have shape (N, D) with D >= 1; got {tuple(tensor.shape)}")
