"""Losses under torch.func against ordinary autograd, one row at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad, hessian, vmap

from lastlayer import losses as L

# Torch's own forward mode scripts its decompositions, of which it warns: since 2.15 by the second.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning"),
]

N, K = 6, 5
COUNTS = [50, 20, 10, 5, 1]
LOGITS = torch.randn(N, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 4, 2, 1, 3, -100])
DETERMINISTIC = {
    "sparsemax": L.SparsemaxLoss(weight=torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])),
    "entmax15": L.Entmax15Loss(label_smoothing=0.1),
    "entmax1.2": L.EntmaxLoss(1.2),
    "entmax3": L.EntmaxLoss(3.0),
    "balanced-softmax": L.BalancedSoftmaxLoss(COUNTS),
    "class-balanced": L.ClassBalancedLoss(COUNTS),
    "ldam": L.LDAMLoss(COUNTS, scale=2.0),
    "pc-softmax": L.PCSoftmaxLoss(torch.tensor(COUNTS) / sum(COUNTS)),
}
RANDOM = {
    "class-dropout": L.ClassDropoutLoss(0.5),
    "sampled": L.SampledSoftmaxLoss(2),
    "sampled-learned": L.SampledSoftmaxLoss(2, "learned", K),
}


@pytest.mark.parametrize("loss", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_gradients_and_hessians_mapped_over_rows_are_those_of_each_row_alone(loss: nn.Module):
    gradients = vmap(grad(loss))(LOGITS, TARGET)
    curvatures = vmap(hessian(loss))(LOGITS, TARGET)
    for i in range(N):
        row = LOGITS[i].clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(row, TARGET[i]), row)
        torch.testing.assert_close(gradients[i], expected)
        expected = torch.autograd.functional.hessian(lambda o, i=i: loss(o, TARGET[i]), LOGITS[i])
        torch.testing.assert_close(curvatures[i], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", RANDOM.values(), ids=RANDOM)
def test_random_losses_draw_anew_for_every_row_and_count_nothing(loss: nn.Module):
    logits = LOGITS[:1].expand(64, K)
    values = vmap(lambda o: loss(o, torch.tensor(1)), randomness="different")(logits)
    assert len(values.unique()) > 1
    assert all(int(buffer.sum()) == K for buffer in loss.buffers())
    values = vmap(grad(loss.eval()))(LOGITS[:5], TARGET[:5])
    softmax = LOGITS[:5].softmax(-1) - torch.eye(K, dtype=torch.float64)[TARGET[:5]]
    torch.testing.assert_close(values, softmax)
    loss.train()


def test_a_wrong_label_is_still_refused_outside_of_transforms():
    with pytest.raises(ValueError, match=r"target must lie in \[0, 4\]"):
        L.SparsemaxLoss()(LOGITS, torch.full((N,), K))
