"""What a training step must not do on an accelerator, seen without one, on the meta device.

Code that makes a tensor without naming a device makes it on the CPU; code that copies a number to
the device, or looks at one there, waits for all that the device still has to do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from counted_heads import build_head
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lastlayer import _checks
from lastlayer import losses as L
from lastlayer.data.augmentation import AUGMENTATIONS, build_augmentation
from lastlayer.heads import HEADS, attach
from lastlayer.models import GapCNN
from lastlayer.regularizers import REGULARIZERS, Disout, build_regularizer, insert

N, D, K = 6, 4, 5
COUNTS = [50, 20, 9, 7, 5]
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
HEAD_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in NAMES},
    "dropmax, form iclr": ("dropmax", {"form": "iclr"}),
    "dropmax, three masks": ("dropmax", {"num_samples": 3}),
    "dropmax, mean": ("dropmax", {"estimator": "mean"}),
    "dropmax-exact, form iclr": ("dropmax-exact", {"form": "iclr", "eps": 1e-6}),
    "attention, regularized": ("attention", {"regularized": True}),
    "entmax 3": ("entmax15", {"alpha": 3.0}),
    "softmax, weighted": ("softmax", {"weight": torch.ones(K)}),
}
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "sparsemax": lambda: L.SparsemaxLoss(weight=torch.ones(K)),
    "entmax": lambda: L.EntmaxLoss(alpha=1.3, label_smoothing=0.1),
    "balanced-softmax": lambda: L.BalancedSoftmaxLoss(COUNTS),
    "class-balanced": lambda: L.ClassBalancedLoss(COUNTS),
    "ldam": lambda: L.LDAMLoss(COUNTS),
    "pc-softmax": lambda: L.PCSoftmaxLoss(torch.full((K,), 1 / K)),
    "class-dropout": lambda: L.ClassDropoutLoss(0.5),
    "sampled": lambda: L.SampledSoftmaxLoss(2),
    "sampled-learned": lambda: L.SampledSoftmaxLoss(2, "learned", K),
}
REGULARIZER_CASES: dict[str, dict[str, Any]] = {
    "variational-dropout": {"num_features": D, "num_examples": 50},
    "concrete-dropout": {"num_features": D, "num_examples": 50},
    "drop-block": {"block_size": 2},
    "disout": {"block_size": 2},
    "cutout": {"length": 3},
}
#: Here the number of steps depends on the numbers; the threshold is looked at as it converges.
LOOKS = {"sparsemax", "entmax15", "entmax"}
COPIES = ("_to_copy", "copy_")
MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor)


class OneDevice(TorchDispatchMode):
    """Refuses an operation on tensors of two devices; numbers, of no dimension, may mix."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        copied = func.overloadpacket.__name__ in COPIES
        if len({x.device for x in tensors if copied or x.dim()}) > 1:
            raise RuntimeError(f"{func} on {[(x.device.type, tuple(x.shape)) for x in tensors]}")
        return out


class NoNumbersCopied(TorchFunctionMode):
    """Refuses a tensor on the device that is made from numbers of the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in MAKERS and out.is_meta:
            raise RuntimeError(f"{func} copies a number to the device")
        return out


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, *, looks: bool = False) -> Iterator[None]:
    """Let nothing through that would fail or wait on an accelerator; ``looks`` excepted."""
    real = _checks.can_look

    def can_look(*tensors: Tensor, wait: bool = False) -> bool:
        if wait and not looks:
            raise RuntimeError("a look at numbers on the device")
        return real(*tensors, wait=wait)

    with monkeypatch.context() as patch:
        for name, module in list(sys.modules.items()):
            # What follows from class counts is kept until they change.
            asks = name.startswith("lastlayer") and getattr(module, "can_look", None) is real
            if asks and name != "lastlayer.losses.class_counts":
                patch.setattr(module, "can_look", can_look)
        with NoNumbersCopied(), OneDevice():
            yield


def features(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta", requires_grad=True)


TARGET = torch.empty(N, dtype=torch.int64, device="meta")


@pytest.mark.parametrize("case", HEAD_CASES)
def test_a_step_and_a_prediction_of_a_head_stay_on_its_device(case, monkeypatch):
    name, options = HEAD_CASES[case]
    head = build_head(name, D, K, **options).to("meta")
    with watched(monkeypatch, looks=name in LOOKS):
        loss = head(features(N, D), TARGET).loss
        loss.backward()
        log_prob = head.eval()(features(N, D))
    assert loss.is_meta
    assert log_prob.is_meta
    assert all(p.grad is None or p.grad.is_meta for p in head.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_of_a_loss_stays_on_its_device(name, monkeypatch):
    loss = LOSSES[name]().to("meta")
    logits = features(N, K)
    with watched(monkeypatch, looks=name in LOOKS):
        loss(logits, TARGET).backward()
    assert logits.grad.is_meta


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_step_of_a_regularizer_stays_on_its_device(name, monkeypatch):
    layer = build_regularizer(name, p=0.3, **REGULARIZER_CASES.get(name, {})).to("meta")
    if isinstance(layer, Disout):
        layer.follow(nn.Conv2d(D, 2, 3, device="meta"))
    maps = features(N, D, 6, 5)
    with watched(monkeypatch):
        (layer(maps).sum() + layer.penalty()).backward()
        assert layer.eval()(maps).is_meta
    assert maps.grad.is_meta


def test_a_step_of_a_network_with_a_head_and_a_regularizer_stays_on_its_device(monkeypatch):
    network = nn.Sequential(GapCNN((1, 12, 12), channels=(4, 4, 4, 6)), nn.Linear(6, K))
    insert(network, "disout", where="0.layers.conv[34]", p=0.1, block_size=2)
    model = attach(network, "dropmax", layer="1").to("meta")
    with watched(monkeypatch):
        model(features(N, 1, 12, 12), target=TARGET).loss.backward()
    assert all(p.grad.is_meta for p in model.parameters())


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_an_augmentation_stays_on_the_device_of_the_images(name, monkeypatch):
    with watched(monkeypatch):
        assert build_augmentation(name)(torch.empty(N, 3, 8, 8, device="meta")).is_meta


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + torch.arange(N),
        lambda x: x[torch.arange(N)],
        lambda x: x + torch.tensor(0.5, device=x.device),
        lambda x: x + x.new_tensor(0.5),
        lambda x: x + torch.ones(()).to(x.device),
        lambda x: x if _checks.can_look(x, wait=True) else -x,
    ],
    ids=["mixed", "index", "tensor", "new_tensor", "to", "look"],
)
def test_what_would_fail_or_wait_is_noticed(wrong, monkeypatch):
    x = torch.empty(N, device="meta")
    with watched(monkeypatch), pytest.raises(RuntimeError):
        wrong(x)
