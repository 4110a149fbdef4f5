"""Class weights by effective number and LDAM's margins against their closed forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional import (
    class_balanced_weight,
    deferred_class_weight,
    ldam_loss,
    ldam_margins,
)
from lastlayer.functional.class_priors import effective_number

COUNTS = torch.tensor([500, 120, 33, 4])
N, K = 6, 4
COSINES = torch.rand(N, K, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1
TARGET = torch.tensor([0, 3, 1, 2, 3, 0])


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=6), st.floats(0, 0.999999))
@settings(max_examples=50)
def test_the_effective_number_is_the_geometric_sum(counts, beta):
    ours = effective_number(counts, beta=beta)
    expected = [(1 - beta**n) / (1 - beta) for n in counts]
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))
    assert (ours >= 1 - 1e-12).all()
    assert (ours <= torch.tensor(counts, dtype=torch.float64) * (1 + 1e-9)).all()


def test_weights_have_mean_one_and_the_two_ends_are_none_and_one_over_n():
    for beta in (0.0, 0.9, 0.9999, 1.0):
        assert class_balanced_weight(COUNTS, beta=beta).mean() == pytest.approx(1.0)
    assert class_balanced_weight(COUNTS, beta=0.0).tolist() == [1.0] * K
    weighted = class_balanced_weight(COUNTS, beta=1.0) * COUNTS
    torch.testing.assert_close(weighted, weighted[:1].expand(K))
    # Close to 1 the digits of 1 - beta^n survive.
    torch.testing.assert_close(
        class_balanced_weight(COUNTS, beta=1 - 1e-14), class_balanced_weight(COUNTS, beta=1.0)
    )


def test_an_unseen_class_has_no_weight_or_is_refused():
    weight = class_balanced_weight([9, 0, 1], beta=1.0, zero_counts="mask")
    assert weight[1] == 0
    assert weight.sum() == pytest.approx(2.0)
    with pytest.raises(ValueError, match="class 1 never occurs"):
        class_balanced_weight([9, 0, 1])


def test_deferred_weights_wait_for_their_share_of_the_training():
    full = class_balanced_weight(COUNTS)
    assert deferred_class_weight(COUNTS, 159 / 200).tolist() == [1.0] * K
    for progress in (160 / 200, 1.0):  # beyond 319 epochs, too
        assert torch.equal(deferred_class_weight(COUNTS, progress), full)
    with pytest.raises(ValueError, match="progress must lie"):
        deferred_class_weight(COUNTS, 1.1)


def test_margins_fall_with_the_fourth_root_and_end_at_the_largest():
    margins = ldam_margins(COUNTS.double(), max_margin=0.5)
    assert margins[-1] == 0.5
    torch.testing.assert_close(margins / margins[0], (COUNTS.double() / COUNTS[0]) ** -0.25)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0, 4.0])])
def test_ldam_is_the_cross_entropy_of_scaled_cosines_less_the_own_margin(reduction, weight):
    margin = F.one_hot(TARGET, K) * ldam_margins(COUNTS.double())[TARGET, None]
    weights = None if weight is None else weight.double()
    expected = F.cross_entropy(30 * (COSINES - margin), TARGET, weight=weights, reduction=reduction)
    ours = ldam_loss(COSINES, TARGET, COUNTS, weight=weight, reduction=reduction)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_ldam_with_ignored_rows_maps_and_derivatives():
    target = TARGET.clone()
    target[1] = -100
    rows = ldam_loss(COSINES, target, COUNTS, reduction="none")
    assert rows[1] == 0
    torch.testing.assert_close(ldam_loss(COSINES, target, COUNTS), rows.sum() / 5)
    maps = COSINES.reshape(2, 3, K).movedim(-1, 1)
    dense = ldam_loss(maps, target.reshape(2, 3), COUNTS, reduction="none")
    torch.testing.assert_close(dense.flatten(), rows)
    free = COSINES[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ldam_loss(z, TARGET[:2], COUNTS, scale=3.0), free)


def test_ldam_refuses_what_a_margin_is_not_defined_for():
    with pytest.raises(TypeError, match="margin is that of one true class"):
        ldam_loss(COSINES, COSINES.softmax(-1), COUNTS)
    with pytest.raises(ValueError, match="class 0 never occurs"):
        ldam_loss(COSINES, TARGET, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="scale must be"):
        ldam_loss(COSINES, TARGET, COUNTS, scale=0.0)
    with pytest.raises(ValueError, match="max_margin must be"):
        ldam_loss(COSINES, TARGET, COUNTS, max_margin=-0.5)
