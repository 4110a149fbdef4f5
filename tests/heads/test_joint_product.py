"""Few classes: the head's linear layers share one matrix product, and nobody can tell."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lastlayer.heads import build_head
from lastlayer.heads import linear as linear_module


@pytest.mark.parametrize("bias", [True, False])
def test_one_product_gives_loss_and_gradients_of_three(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    head = build_head("dropmax", 6, 4, bias=bias, dtype=torch.float64)
    features = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    target = torch.randint(4, (9,))
    noise = torch.randn(1, 9, 4, dtype=torch.float64)
    results = []
    for joint in (64, 0):
        monkeypatch.setattr(linear_module, "JOINT_FEATURES", joint)
        loss = head(features, target, noise=noise).loss
        results.append((loss, *torch.autograd.grad(loss, [features, *head.parameters()])))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


def test_a_hook_on_a_branch_is_called() -> None:
    head = build_head("dropmax", 6, 4)
    seen: list[torch.Size] = []
    head.retain.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    head(torch.zeros(2, 6), torch.tensor([0, 1]))
    assert seen == [torch.Size([2, 4])]


def test_a_layer_of_another_kind_is_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(features)

    torch.manual_seed(0)
    head = build_head("dropmax", 6, 4)
    plain = head(torch.ones(2, 6), torch.tensor([0, 1]), noise=torch.zeros(1, 2, 4))
    doubled = Doubled(6, 4)
    doubled.load_state_dict(head.classifier.state_dict())
    head.classifier = doubled
    other = head(torch.ones(2, 6), torch.tensor([0, 1]), noise=torch.zeros(1, 2, 4))
    assert not torch.equal(plain.terms["nll"], other.terms["nll"])
    torch.testing.assert_close(plain.terms["kl"], other.terms["kl"])


def test_a_layer_without_bias_beside_others_with_one() -> None:
    torch.manual_seed(0)
    head = build_head("dropmax", 6, 4)
    head.retain = nn.Linear(6, 4, bias=False)
    features = torch.ones(2, 6)
    torch.testing.assert_close(head.retain_prob(features), head.retain(features).sigmoid())
    assert head(features, torch.tensor([0, 1])).loss.isfinite()
