"""Features of many inputs: those of one call on all of them, whatever the batches and the mode."""

import pytest
import torch
from torch import nn

from lastlayer.heads import Classifier, Softmax

N, D = 11, 5


class Several(nn.Module):
    """Takes a float tensor and tokens, the latter by name too."""

    def __init__(self):
        super().__init__()
        self.linear, self.embedding = nn.Linear(4, D), nn.Embedding(9, D)
        self.noise = nn.Dropout(0.5)

    def forward(self, numbers, tokens):
        return self.noise(self.linear(numbers) + self.embedding(tokens).mean(dim=1))


def made(backbone=None, seed=0):
    torch.manual_seed(seed)
    return Classifier(backbone or Several(), Softmax(D, 3))


NUMBERS = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
TOKENS = torch.arange(N * 6).reshape(N, 6) % 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 4, N, 100])
def test_they_are_those_of_one_call_in_evaluation_mode_and_in_the_weights_precision(size, dtype):
    model = made().to(dtype)
    with torch.no_grad():
        backbone = model.backbone
        expected = backbone.linear(NUMBERS.to(dtype)) + backbone.embedding(TOKENS).mean(dim=1)
    for inputs in ((NUMBERS, TOKENS), {"tokens": TOKENS, "numbers": NUMBERS}):
        found = model.features_of(inputs, size)
        assert found.dtype == dtype
        assert not found.requires_grad
        # Matrix products of other batches may round in another order.
        bound = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


def test_every_part_is_in_its_own_mode_afterward_also_if_the_network_fails():
    model = made(nn.Sequential(nn.Linear(4, D), nn.BatchNorm1d(D), nn.Dropout(0.5)))
    model.backbone[1].eval()
    modes = [module.training for module in model.modules()]
    before = model.backbone[1].running_mean.clone()
    model.features_of(NUMBERS, 3)
    with pytest.raises(RuntimeError):
        model.features_of(NUMBERS[:, :2])
    assert [module.training for module in model.modules()] == modes
    assert modes.count(False) == 1
    assert torch.equal(model.backbone[1].running_mean, before)


def test_a_backbone_without_weights_takes_the_heads_precision():
    model = made(nn.Flatten()).double()
    assert model.features_of(torch.zeros(2, 1, 5)).dtype == torch.float64
    assert model.features_of(torch.zeros(2, 1, 5)).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((NUMBERS, 0), ValueError, "batch_size must be"),
        ((NUMBERS[:0],), ValueError, "at least one example; got none"),
        (([1.0],), TypeError, "inputs must be a tensor, a tuple of tensors or a mapping"),
        (((NUMBERS, TOKENS[:3]),), ValueError, "one row per example in every tensor"),
    ],
)
def test_what_does_not_fit_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        made().features_of(*arguments)
