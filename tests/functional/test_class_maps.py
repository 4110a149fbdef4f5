"""CAM, infoCAM and infoCAM+: identities, gauge, windows, brute force, low precision, bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from lastlayer.functional.class_maps import (
    class_map,
    least_likely_class,
    logit_contrast,
    map_weight,
    window_reduce,
)


def example(n=3, channels=5, h=4, w=3, classes=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, channels, h, w, generator=generator, dtype=dtype)
    weight = torch.randn(classes, channels, generator=generator, dtype=dtype)
    bias = torch.randn(classes, generator=generator, dtype=dtype)
    target = torch.randint(classes, (n,), generator=generator)
    return features, weight, bias, target


def logits_of(features, weight, bias):
    return features.mean((2, 3)) @ weight.T + bias


def all_targets(features, weight):
    return torch.arange(len(weight)).expand(len(features), -1)


def maps_of(features, weight, bias, target, method, **options):
    reference = None
    if method == "infocam+":
        reference = least_likely_class(logits_of(features, weight, bias))
    return class_map(features, weight, target, method=method, reference=reference, **options)


def brute_force(features, weight, target, method, reference):
    """The definition, cell by cell."""
    n, channels, h, w = features.shape
    classes = len(weight)
    out = np.zeros((n, h, w))
    f, weights = features.double().numpy(), weight.double().numpy()
    for i, a, b in itertools.product(range(n), range(h), range(w)):
        cam = [sum(weights[y, c] * f[i, c, a, b] for c in range(channels)) for y in range(classes)]
        t = int(target[i])
        if method == "cam":
            out[i, a, b] = cam[t]
        elif method == "infocam":
            others = [cam[y] for y in range(classes) if y != t]
            out[i, a, b] = cam[t] - sum(others) / (classes - 1)
        else:
            out[i, a, b] = cam[t] - cam[int(reference[i])]
    return out


@pytest.mark.parametrize("method", ["cam", "infocam", "infocam+"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 3, 6), (1, 2, 1, 1, 2), (2, 1, 1, 5, 3)])
def test_maps_equal_their_definition_cell_by_cell(method, shape):
    features, weight, bias, target = example(*shape)
    reference = least_likely_class(logits_of(features, weight, bias))
    found = maps_of(features, weight, bias, target, method)
    expected = brute_force(features, weight, target, method, reference)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(2, 7), st.integers(0, 99)
)
@settings(max_examples=40)
def test_means_over_cells_are_logits_and_their_differences(n, channels, side, classes, seed):
    features, weight, bias, target = example(n, channels, side, side + 1, classes, seed)
    logits = logits_of(features, weight, bias)
    rows = torch.arange(n)
    own, own_bias = logits[rows, target], bias[target]
    cam, info, plus = (
        maps_of(features, weight, bias, target, method).mean((1, 2))
        for method in ("cam", "infocam", "infocam+")
    )
    tight = {"rtol": 1e-11, "atol": 1e-12}
    torch.testing.assert_close(cam + own_bias, own, **tight)
    others = (logits.sum(1) - own) / (classes - 1)
    other_bias = (bias.sum() - own_bias) / (classes - 1)
    torch.testing.assert_close(info + own_bias - other_bias, own - others, **tight)
    torch.testing.assert_close(
        info + logit_contrast(bias)[target], logit_contrast(logits)[rows, target], **tight
    )
    lowest = logits.argmin(1)
    torch.testing.assert_close(plus + own_bias - bias[lowest], own - logits.amin(1), **tight)


def test_infocam_of_all_classes_adds_up_to_zero_in_every_cell():
    features, weight, _, _ = example()
    maps = class_map(features, weight, all_targets(features, weight))
    assert maps.shape == (3, 6, 4, 3)
    assert maps.sum(1).abs().max() < 1e-13 * maps.abs().max() * 10


def test_several_targets_give_the_maps_of_each():
    features, weight, bias, _ = example()
    target = torch.tensor([[0, 5], [2, 2], [4, 1]])
    for method in ("cam", "infocam", "infocam+"):
        together = maps_of(features, weight, bias, target, method)
        for column in range(2):
            alone = maps_of(features, weight, bias, target[:, column], method)
            torch.testing.assert_close(together[:, column], alone)


def test_with_two_classes_infocam_is_infocam_plus_is_the_difference_of_the_cams():
    features, weight, bias, _ = example(classes=2)
    predicted = logits_of(features, weight, bias).argmax(1)
    cams = class_map(features, weight, all_targets(features, weight), method="cam")
    rows = torch.arange(3)
    difference = cams[rows, predicted] - cams[rows, 1 - predicted]
    torch.testing.assert_close(maps_of(features, weight, bias, predicted, "infocam"), difference)
    torch.testing.assert_close(maps_of(features, weight, bias, predicted, "infocam+"), difference)


def test_a_row_added_to_all_weights_changes_cam_alone():
    features, weight, bias, target = example()
    shift = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = weight + shift
    before, after = (logits_of(features, each, bias).softmax(1) for each in (weight, moved))
    torch.testing.assert_close(before, after)
    for method in ("infocam", "infocam+"):
        torch.testing.assert_close(
            maps_of(features, weight, bias, target, method),
            maps_of(features, moved, bias, target, method),
            rtol=1e-11,
            atol=1e-12,
        )
    cam = [class_map(features, each, target, method="cam") for each in (weight, moved)]
    assert (cam[0] - cam[1]).abs().max() > 1.0


def test_a_permutation_of_the_classes_permutes_the_maps():
    features, weight, bias, target = example()
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    for method in ("cam", "infocam", "infocam+"):
        torch.testing.assert_close(
            maps_of(features, weight[order], bias[order], order.argsort()[target], method),
            maps_of(features, weight, bias, target, method),
        )


def test_infocam_is_the_signed_gradcam_of_the_contrast_times_the_number_of_cells():
    features, weight, bias, target = example()
    leaf = features.clone().requires_grad_()
    contrast = logit_contrast(logits_of(leaf, weight, bias))
    (gradient,) = torch.autograd.grad(contrast[torch.arange(3), target].sum(), leaf)
    gradcam = (gradient.mean((2, 3), keepdim=True) * features).sum(1)
    torch.testing.assert_close(class_map(features, weight, target), 12 * gradcam)


def test_infocam_plus_of_the_least_likely_class_is_zero():
    features, weight, bias, _ = example()
    lowest = logits_of(features, weight, bias).argmin(1)
    assert not maps_of(features, weight, bias, lowest, "infocam+").any()


def test_maps_pass_gradcheck():
    features, weight, bias, target = example(n=2, h=2, w=2)
    for method in ("cam", "infocam", "infocam+"):
        assert torch.autograd.gradcheck(
            lambda f, w, m=method: maps_of(f, w, bias, target, m, window=2),
            (features.requires_grad_(), weight.requires_grad_()),
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_computed_in_float32(dtype):
    features, weight, _, target = example()
    features, weight = features.to(dtype), weight.to(dtype)
    found = class_map(features, weight, target)
    assert found.dtype == torch.float32
    expected = class_map(features.double(), weight.double(), target)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-6)


def test_channels_last_features_give_the_same_maps():
    features, weight, _, target = example()
    other = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        class_map(other, weight, target), class_map(features, weight, target)
    )


@given(st.integers(1, 7), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=40)
def test_windows_equal_a_convolution_by_scipy(window, h, w, seed):
    maps = torch.randn(2, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ones = np.ones((window, window))
    same = window_reduce(maps, window, reduction="sum")
    before = (window - 1) // 2  # windows reach one further down and right if even
    for each, found in zip(maps.numpy(), same.numpy(), strict=True):
        full = signal.correlate2d(each, ones, mode="full")
        start = window - 1 - before
        np.testing.assert_allclose(
            found, full[start : start + h, start : start + w], rtol=1e-10, atol=1e-12
        )
    mean = window_reduce(maps, window)
    torch.testing.assert_close(mean * window**2, same)
    if window <= min(h, w):
        valid = window_reduce(maps, window, padding="valid", reduction="sum")
        for each, found in zip(maps.numpy(), valid.numpy(), strict=True):
            expected = signal.correlate2d(each, ones, mode="valid")
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_window_of_one_cell_changes_nothing_and_windows_commute_with_the_contrast():
    features, weight, bias, target = example()
    for method in ("cam", "infocam", "infocam+"):
        plain = maps_of(features, weight, bias, target, method)
        assert torch.equal(maps_of(features, weight, bias, target, method, window=1), plain)
        smooth = maps_of(features, weight, bias, target, method, window=3, reduction="sum")
        torch.testing.assert_close(smooth, window_reduce(plain, 3, reduction="sum"))


def test_a_valid_window_as_large_as_the_map_is_the_contrast_of_the_logits():
    features, weight, bias, target = example(h=3, w=3)
    whole = class_map(features, weight, target, window=3, padding="valid")
    contrast = logit_contrast(logits_of(features, weight, bias) - bias)
    torch.testing.assert_close(whole[:, 0, 0], contrast[torch.arange(3), target])


def test_contrast_is_the_logit_less_the_mean_of_the_others():
    logits = torch.tensor([3.0, 1.0, -4.0], dtype=torch.float64)
    expected = [3 - (-3 / 2), 1 - (-1 / 2), -4 - 4 / 2]
    assert logit_contrast(logits).tolist() == pytest.approx(expected, rel=1e-14)
    torch.testing.assert_close(logit_contrast(logits.log_softmax(0)), logit_contrast(logits))


def test_with_one_class_cam_is_defined_and_infocam_refused():
    features, weight, _, _ = example(classes=1)
    target = torch.zeros(3, dtype=torch.int64)
    cam = class_map(features, weight, target, method="cam")
    torch.testing.assert_close(cam, (features * weight.view(1, -1, 1, 1)).sum(1))
    with pytest.raises(ValueError, match=r"weight must have at least 2 classes .* got 1"):
        class_map(features, weight, target)
    with pytest.raises(ValueError, match="logits must have at least 2 classes"):
        logit_contrast(torch.zeros(3, 1))


def test_nan_features_show_in_their_own_map_only():
    features, weight, _, target = example()
    features[1, 0, 0, 0] = math.nan
    maps = class_map(features, weight, target)
    assert maps[1, 0, 0].isnan()
    assert maps.isnan().sum() == 1


def test_nan_logits_have_no_least_likely_class():
    with pytest.raises(ValueError, match="logits must not be NaN; row 1 is"):
        least_likely_class(torch.tensor([[0.0, 1.0], [math.nan, 1.0]]))


def test_no_example_gives_no_map():
    features, weight, _, target = example()
    assert class_map(features[:0], weight, target[:0]).shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "gradcam"}, ValueError, "method must be one of 'cam', 'infocam', 'infocam"),
        ({"method": "infocam+"}, ValueError, "reference must be given"),
        ({"reference": torch.zeros(3).long()}, ValueError, "reference must be given .* no other"),
        (
            {"method": "infocam+", "reference": torch.zeros(2).long()},
            ValueError,
            r"reference must have shape \(3,\)",
        ),
        ({"target": torch.tensor([0, 6, 0])}, ValueError, r"target must lie in \[0, 5\].*got 6"),
        ({"target": torch.tensor([0, 1])}, ValueError, r"target must have shape \(3,\) or"),
        ({"target": torch.zeros(3)}, TypeError, "int64"),
        ({"features": torch.zeros(3, 5)}, ValueError, r"features must have shape \(N, 5, h, w\)"),
        ({"features": torch.zeros(3, 4, 2, 2)}, ValueError, r"got \(3, 4, 2, 2\)"),
        ({"features": torch.zeros(3, 5, 2, 2).long()}, TypeError, "features must have a floating"),
        ({"weight": torch.zeros(5)}, ValueError, r"weight must have shape \(K, C\)"),
        ({"window": 0}, ValueError, "window must be a whole number of at least 1"),
        ({"window": 2.5}, ValueError, "window must be a whole number"),
        ({"window": 4, "padding": "valid"}, ValueError, "at most the map's 4 x 3 cells"),
        ({"window": 2, "padding": "full"}, ValueError, "padding must be one of"),
        ({"window": 2, "reduction": "max"}, ValueError, "reduction must be one of"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    features, weight, _, target = example()
    arguments = {"features": features, "weight": weight, "target": target} | change
    with pytest.raises(error, match=message):
        class_map(**arguments)


def test_the_row_of_weights_is_all_that_a_map_needs():
    features, weight, _, target = example()
    row = map_weight(weight, target)
    assert row.shape == (3, 5)
    torch.testing.assert_close(
        torch.einsum("nc,nchw->nhw", row, features), class_map(features, weight, target)
    )
