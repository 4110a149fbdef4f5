"""New rows from features: directions of class means, at the size of the old rows."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from counted_heads import build_head
from torch import nn

from lastlayer.functional.incremental.class_means import class_directions
from lastlayer.heads import HEADS, LDAM, Head, Softmax, grow, imprint

N, D, K = 40, 6, 5
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.arange(N) % K


def expected_directions(features: np.ndarray, target: np.ndarray, classes: list[int]) -> np.ndarray:
    unit = features / np.sqrt((features**2).sum(1, keepdims=True))
    means = np.stack([unit[target == label].mean(0) for label in classes])
    return means / np.sqrt((means**2).sum(1, keepdims=True))


def test_directions_are_normalized_means_of_normalized_features():
    found = class_directions(FEATURES, TARGET, torch.tensor([4, 1]))
    expected = expected_directions(FEATURES.numpy(), TARGET.numpy(), [4, 1])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13)


def test_the_length_of_a_feature_does_not_matter():
    scale = torch.rand(N, 1, generator=GENERATOR, dtype=torch.float64) * 100 + 0.01
    classes = torch.arange(K)
    torch.testing.assert_close(
        class_directions(scale * FEATURES, TARGET, classes),
        class_directions(FEATURES, TARGET, classes),
    )


def test_one_example_is_its_own_direction():
    found = class_directions(torch.tensor([[3.0, 4.0]]), torch.tensor([7]), torch.tensor([7]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8]]))
    assert class_directions(FEATURES, TARGET, torch.tensor([], dtype=torch.int64)).shape == (0, D)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    low = FEATURES.to(dtype)
    found = class_directions(low, TARGET, torch.arange(K))
    assert found.dtype == torch.float32
    exact = class_directions(low.double(), TARGET, torch.arange(K))
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_the_classes_alone_are_set_at_the_mean_norm_of_the_others(name):
    torch.manual_seed(0)
    head = build_head(name, D, 3, dtype=torch.float64)
    grow(head, 2, class_counts=[9, 8, 7, 6, 5])
    before, parameters = copy.deepcopy(head), list(head.parameters())
    imprint(head, FEATURES, TARGET, [4, 3])
    old = before.classifier.weight.detach().numpy()[:3]
    norm = np.sqrt((old**2).sum(1)).mean()
    expected = norm * expected_directions(FEATURES.numpy(), TARGET.numpy(), [3, 4])
    np.testing.assert_allclose(head.classifier.weight[3:].detach().numpy(), expected, rtol=1e-12)
    assert torch.equal(head.classifier.weight[:3], before.classifier.weight[:3])
    if head.classifier.bias is not None:
        assert not head.classifier.bias[3:].any()
        assert torch.equal(head.classifier.bias[:3], before.classifier.bias[:3])
    for branch, untouched in zip(head.branches().values(), before.branches().values(), strict=True):
        assert torch.equal(branch.weight, untouched.weight)
    assert all(a is b for a, b in zip(parameters, head.parameters(), strict=True))
    head(FEATURES, TARGET).loss.backward()


def test_separated_classes_are_told_apart_without_a_step():
    for kind in (Softmax, lambda d, k: LDAM(d, k, class_counts=[5] * k)):
        head = kind(D, K)
        centers = 4 * torch.eye(D)[:K]
        features = centers[TARGET] + 0.5 * torch.randn(N, D, generator=GENERATOR)
        imprint(head, features, TARGET, range(K))
        assert head.predict(features).tolist() == TARGET.tolist()


def test_without_other_classes_rows_are_unit_vectors_and_dtypes_are_the_heads():
    head = Softmax(D, K, dtype=torch.bfloat16)
    imprint(head, FEATURES.reshape(4, 10, D), TARGET.reshape(4, 10), torch.arange(K))
    assert head.classifier.weight.dtype == torch.bfloat16
    norms = head.classifier.weight.detach().float().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(K), rtol=0, atol=0.01)
    before = head.classifier.weight.detach().clone()
    imprint(head, FEATURES, TARGET, [])
    assert torch.equal(head.classifier.weight, before)


def refused(error: type[Exception], message: str, head: Head | nn.Module | None = None, **changed):
    head = Softmax(D, K, dtype=torch.float64) if head is None else head
    before = copy.deepcopy(head.state_dict())
    arguments = {"features": FEATURES, "target": TARGET, "classes": [3, 4]} | changed
    with pytest.raises(error, match=message):
        imprint(head, **arguments)
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())


def test_what_does_not_fit_is_refused():
    refused(ValueError, "target must have an example of every class; class 3", target=TARGET % 3)
    refused(ValueError, r"classes must lie in \[0, 4\]", classes=[3, 5])
    refused(ValueError, r"classes must lie in \[0, 4\]", classes=[-1])
    refused(ValueError, "each class once", classes=[3, 3])
    refused(ValueError, r"classes must have shape \(C,\)", classes=torch.tensor(3))
    refused(TypeError, "classes must hold whole numbers", classes=[3.0])
    refused(ValueError, r"features must have shape \(\*, 6\)", features=FEATURES[:, :5])
    refused(ValueError, r"target must have shape \(40,\)", target=TARGET[:5])
    refused(TypeError, "target must hold integer labels", target=TARGET.double())
    refused(ValueError, "features must be finite", features=FEATURES * math.nan)
    refused(ValueError, "features of class 3 must have a mean direction", features=FEATURES * 0)
    refused(TypeError, "head must be a", head=nn.Linear(D, K))
    head = Softmax(D, K)
    nn.utils.parametrizations.weight_norm(head.classifier)
    refused(ValueError, r"classifier must be a plain nn\.Linear", head=head)


def test_directions_that_cancel_out_are_refused():
    features = torch.tensor([[1.0, 2.0], [-3.0, -6.0]])
    with pytest.raises(ValueError, match="features of class 0 must have a mean direction"):
        class_directions(features, torch.tensor([0, 0]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"features must have shape \(N, D\)"):
        class_directions(torch.zeros(3), torch.zeros(3, dtype=torch.int64), torch.tensor([0]))
