"""The counts of a step: what they are, and what they do in the balanced softmax."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lastlayer.functional import balanced_softmax_loss
from lastlayer.functional.incremental import rehearsal_counts


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=6).filter(any),
    st.data(),
    st.floats(1e-3, 1e3),
    st.floats(0, 10),
)
def test_the_counts_are_those_of_the_formula(counts, data, alpha, epsilon):
    num_old = data.draw(st.integers(0, len(counts)))
    expected = [(alpha * c if c else epsilon) if j < num_old else c for j, c in enumerate(counts)]
    ours = rehearsal_counts(counts, num_old, alpha=alpha, epsilon=epsilon)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


def test_the_counts_given_stay_as_they_are():
    counts = torch.tensor([4.0, 0.0, 9.0], dtype=torch.float64)
    rehearsal_counts(counts, 2, alpha=2.0, epsilon=0.5)
    assert counts.tolist() == [4.0, 0.0, 9.0]


def losses(logits, target, epsilon):
    counts = rehearsal_counts([0, 0, 50, 50], num_old=2, epsilon=epsilon)
    return balanced_softmax_loss(logits, target, counts, zero_counts="mask")


def test_without_memory_the_small_count_goes_from_the_new_classes_alone_to_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([2, 3, 3, 2, 2, 3])
    removed = losses(logits, target, 0.0)
    torch.testing.assert_close(removed, F.cross_entropy(logits[:, 2:], target - 2))
    assert torch.autograd.grad(removed, logits)[0][:, :2].eq(0).all()
    torch.testing.assert_close(losses(logits, target, 50.0), F.cross_entropy(logits, target))
    path = [
        float(losses(logits.detach(), target, epsilon)) for epsilon in (0.0, 1e-6, 0.01, 1.0, 50.0)
    ]
    assert path == sorted(path)
    assert path[1] == pytest.approx(path[0], abs=1e-6)


def test_the_optimal_logits_of_old_classes_gain_minus_the_log_of_alpha():
    counts, alpha = torch.tensor([30.0, 10.0, 60.0], dtype=torch.float64), 0.25
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-14, tolerance_change=0)
    target = (counts / counts.sum()).unsqueeze(0)  # one point of input space, labels by the counts
    scaled = rehearsal_counts(counts, num_old=2, alpha=alpha)

    def closure():
        optimizer.zero_grad()
        loss = balanced_softmax_loss(logits.unsqueeze(0), target, scaled)
        loss.backward()
        return loss

    optimizer.step(closure)
    learned = logits.detach() - logits.detach()[2]
    gain = -math.log(alpha)
    torch.testing.assert_close(learned, learned.new_tensor([gain, gain, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"num_old": 4}, "num_old"),
        ({"num_old": -1}, "num_old"),
        ({"num_old": True}, "num_old"),
        ({"class_counts": [0, 0, 0]}, "class_counts"),
        ({"class_counts": []}, "class_counts"),
    ],
)
def test_a_bad_argument_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        rehearsal_counts(**({"class_counts": [2, 2, 9], "num_old": 2} | arguments))
