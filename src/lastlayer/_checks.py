"""Argument checks of every room: each error names the argument, what was expected, what came."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {listed}; got {value!r}")


def check_positive(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above zero."""
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0; got {value!r}")


def check_at_least(name: str, value: float, minimum: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number of at least ``minimum``."""
    if not minimum <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of at least {minimum}; got {value!r}")


def check_probability(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1]; got {value!r}")


def check_class_weight(weight: Tensor | None, num_classes: int) -> None:
    """Raise ``ValueError`` unless ``weight`` is None or one finite weight >= 0 per class."""
    if weight is None:
        return
    if weight.shape != (num_classes,):
        raise ValueError(
            f"weight must have shape ({num_classes},), one weight per class; "
            f"got {tuple(weight.shape)}"
        )
    if torch.compiler.is_compiling():
        return
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise ValueError(
            "weight must hold finite numbers of at least 0; got a negative, infinite or NaN entry"
        )


def check_last_dim(name: str, tensor: Tensor, size: int) -> None:
    """Raise ``ValueError`` unless the last dimension of ``tensor`` has ``size`` entries."""
    if tensor.dim() == 0 or tensor.shape[-1] != size:
        raise ValueError(f"{name} must have shape (*, {size}); got {tuple(tensor.shape)}")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise ``TypeError`` unless ``tensor`` has a floating-point dtype."""
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype; got {tensor.dtype}")


def check_class_indices(target: Tensor, num_classes: int, ignore_index: int) -> bool:
    """Raise unless ``target`` holds int64 class indices in [0, num_classes) or ``ignore_index``.

    Returns whether every row is known to hold a class index other than ``ignore_index``.

    The range is looked at on the CPU only: on an accelerator it would force a synchronisation in
    every step, and while compiling it would break the graph; there the device's own assert speaks.
    """
    if target.dtype != torch.int64:
        raise TypeError(f"target must hold int64 class indices; got dtype {target.dtype}")
    if torch.compiler.is_compiling() or target.device.type != "cpu" or target.numel() == 0:
        return False
    smallest, largest = (int(bound) for bound in target.aminmax())
    if smallest >= 0 and largest < num_classes:
        return not 0 <= ignore_index < num_classes
    outside = ((target < 0) | (target >= num_classes)) & (target != ignore_index)
    if bool(outside.any()):
        label = int(target[outside][0])
        raise ValueError(
            f"target must lie in [0, {num_classes - 1}] or equal ignore_index={ignore_index}; "
            f"got {label}"
        )
    return False


def check_options(what: str, function: Callable[..., object], options: Iterable[str]) -> None:
    """Raise ``ValueError`` unless every option is a keyword-only argument of ``function``."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            listed = ", ".join(known) if known else "none"
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
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")


def check_prior(name: str, prior: Tensor, num_classes: int | None = None) -> None:
    """Raise unless ``prior`` holds one probability per class, of sum 1 but for rounding."""
    check_floating(name, prior)
    wanted = "K" if num_classes is None else str(num_classes)
    if (
        prior.dim() != 1
        or not len(prior)
        or (num_classes is not None and len(prior) != num_classes)
    ):
        raise ValueError(
            f"{name} must have shape ({wanted},), one probability per class; "
            f"got {tuple(prior.shape)}"
        )
    if torch.compiler.is_compiling():
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


def check_labelled_features(features: Tensor, target: Tensor) -> None:
    """Raise unless ``features`` is (N, D), finite, and ``target`` (N,) integers, with N >= 2."""
    check_floating("features", features)
    if features.dim() != 2 or features.shape[1] == 0:
        raise ValueError(
            f"features must have shape (N, D) with D >= 1; got {tuple(features.shape)}"
        )
    check_labels("target", target, len(features))
    if len(features) < 2:
        raise ValueError(f"features must hold at least 2 examples; got {len(features)}")
    check_finite("features", features)


def check_labels(name: str, labels: Tensor, num_examples: int) -> None:
    """Raise unless ``labels`` holds one integer for each of ``num_examples`` examples."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must hold integer labels; got dtype {labels.dtype}")
    if labels.shape != (num_examples,):
        raise ValueError(
            f"{name} must have shape ({num_examples},), one label per example; "
            f"got {tuple(labels.shape)}"
        )


def check_whole(name: str, value: int, minimum: int, maximum: int | None = None) -> None:
    """Raise ``ValueError`` unless ``value`` is a whole number of [minimum, maximum]."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < minimum or (maximum is not None and value > maximum):
        wanted = f"of at least {minimum}" if maximum is None else f"in [{minimum}, {maximum}]"
        raise ValueError(f"{name} must be a whole number {wanted}; got {value!r}")


def check_matrix(name: str, tensor: Tensor) -> None:
    """Raise unless ``tensor`` is floating point of shape (N, D) with D >= 1."""
    check_floating(name, tensor)
    if tensor.dim() != 2 or tensor.shape[1] == 0:
        raise ValueError(f"{name} must have shape (N, D) with D >= 1; got {tuple(tensor.shape)}")
