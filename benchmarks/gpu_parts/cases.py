"""The heads, losses and regularizers that the parts look at, each by a name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lastlayer import losses as L
from lastlayer.heads import HEADS, DropMax, Head, HeadOutput, build_head, takes_class_counts
from lastlayer.regularizers import Disout, build_regularizer

#: Heads of ours, as they are called, and with options that take another way through the code.
HEAD_NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
HEAD_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax, weighted": ("softmax", {"weight": True}),
    "entmax 1.3": ("entmax15", {"alpha": 1.3}),
    "entmax 3": ("entmax15", {"alpha": 3.0}),
    "class-dropout, monte-carlo": ("class-dropout", {"prediction": "monte-carlo"}),
    "attention, regularized": ("attention", {"regularized": True}),
    "dropmax, three masks": ("dropmax", {"num_samples": 3}),
    "dropmax, mean": ("dropmax", {"estimator": "mean"}),
    "dropmax, form iclr": ("dropmax", {"form": "iclr"}),
    "dropmax, detach parameters": ("dropmax", {"detach": "parameters"}),
    "dropmax, exact prediction": ("dropmax", {"prediction": "exact"}),
    "dropmax, monte-carlo": ("dropmax", {"prediction": "monte-carlo", "prediction_samples": 20}),
    "dropmax, no bias": ("dropmax", {"bias": False}),
}


def class_counts(num_classes: int) -> list[int]:
    """Return counts that fall from 1000 to about 10."""
    return [10 + 990 * (num_classes - k) // num_classes for k in range(num_classes)]


def make_head(
    name: str, in_features: int, num_classes: int, *, seed: int = 0, **options: Any
) -> Head:
    """Build a head of ``HEAD_NAMES`` or ``HEAD_OPTIONS``, always the same on one device."""
    torch.manual_seed(seed)
    name, own = HEAD_OPTIONS.get(name, (name, {}))
    own = dict(own)
    if own.get("weight"):
        own["weight"] = torch.linspace(0.5, 2.0, num_classes)
    if takes_class_counts(name):
        own["class_counts"] = class_counts(num_classes)
    return build_head(name, in_features, num_classes, **own, **options)


def head_noise(head: Head, rows: int, device: str) -> Tensor | None:
    """Return noise of a head's step as ``forward`` takes it; None if it draws nothing."""
    if not head.stochastic:
        return None
    samples = (head.num_samples,) if isinstance(head, DropMax) else ()
    generator = torch.Generator().manual_seed(7)
    # Away from the ends, where float32 has no logit.
    uniform = torch.rand(*samples, rows, head.num_classes, generator=generator) * 0.998 + 0.001
    return (uniform.logit() if isinstance(head, DropMax) else uniform).to(device)


def loss_of(head: nn.Module, features: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Return the training loss of a head."""
    out = head(features, target, **options)
    if not isinstance(out, HeadOutput):
        raise TypeError("a head in training returns its loss")
    return out.loss


class HeadLoss(nn.Module):
    """A head as a module that returns its loss alone, which compiles as a whole."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        return loss_of(self.head, features, target, **({} if noise is None else {"noise": noise}))


class PlainLoss(nn.Module):
    """What a user has before: a linear layer and cross-entropy."""

    def __init__(self, in_features: int, num_classes: int, device: str) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes, device=device)

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.linear(features), target)


def make_losses(num_classes: int) -> dict[str, nn.Module]:
    """Return the losses on logits by name, on the CPU."""
    counts = class_counts(num_classes)
    weight = torch.linspace(0.5, 2.0, num_classes)
    return {
        "sparsemax": L.SparsemaxLoss(),
        "sparsemax, weighted, smoothed": L.SparsemaxLoss(weight=weight, label_smoothing=0.1),
        "entmax15": L.Entmax15Loss(),
        "entmax 1.3": L.EntmaxLoss(alpha=1.3),
        "balanced-softmax": L.BalancedSoftmaxLoss(counts),
        "balanced-softmax, weighted": L.BalancedSoftmaxLoss(counts, 0.25, weight=weight),
        "class-balanced": L.ClassBalancedLoss(counts),
        "ldam": L.LDAMLoss(counts),
        "pc-softmax": L.PCSoftmaxLoss(torch.tensor(counts) / sum(counts)),
        "class-dropout": L.ClassDropoutLoss(0.5),
        "sampled": L.SampledSoftmaxLoss(max(1, num_classes // 3)),
        "sampled-learned": L.SampledSoftmaxLoss(max(1, num_classes // 3), "learned", num_classes),
    }


class Regularized(nn.Module):
    """A regularizer of ``REGULARIZER_OPTIONS`` and the layer behind it, which Disout looks at."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        name, options = REGULARIZER_OPTIONS[name]
        if name in ADAPTIVE:
            options = options | {"num_features": channels, "num_examples": 50}
        self.layer = build_regularizer(name, **options)
        self.behind = nn.Conv2d(channels, 4, 3)
        if isinstance(self.layer, Disout):
            self.layer.follow(self.behind)

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features)


ADAPTIVE = ("variational-dropout", "concrete-dropout")
#: The dense sampler is an accelerator's; on the CPU it is asked for, to have the same draws.
REGULARIZER_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "dropout": ("dropout", {"p": 0.4}),
    "spatial-dropout": ("spatial-dropout", {"p": 0.4}),
    "drop-path": ("drop-path", {"p": 0.4}),
    "drop-block": ("drop-block", {"p": 0.2, "block_size": 3, "sampler": "dense"}),
    "drop-block, shared": (
        "drop-block",
        {"p": 0.2, "block_size": 3, "sampler": "dense", "share_channels": True},
    ),
    "disout": ("disout", {"p": 0.2, "block_size": 3, "sampler": "dense"}),
    "disout, released": ("disout", {"p": 0.2, "block_size": 3, "released": True}),
    "cutout": ("cutout", {"length": 3, "p": 0.8}),
    "gaussian-dropout": ("gaussian-dropout", {"p": 0.4}),
    "variational-dropout": ("variational-dropout", {"p": 0.4}),
    "concrete-dropout": ("concrete-dropout", {"p": 0.4}),
    "standout": ("standout", {"p": 0.4}),
}
