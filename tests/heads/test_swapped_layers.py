"""Heads whose linear layers were swapped: quantized, adapted, parametrized, hooked, in half."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from lastlayer.heads import HEADS, Head, attach, build_head
from lastlayer.heads.catalog import takes_class_counts

D, K = 12, 5
NAMES = sorted(HEADS.names())
FEATURES = torch.randn(40, D, generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(K, (40,), generator=torch.Generator().manual_seed(2))


class LowRank(nn.Module):
    """A layer with a trained low-rank correction, not an ``nn.Linear``: the shape of peft's."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False).to(base.weight.dtype)
        self.up = nn.Linear(2, base.out_features, bias=False).to(base.weight.dtype)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        return self.base.bias

    def forward(self, features: Tensor) -> Tensor:
        return self.base(features) + self.up(self.down(features))

    def merged(self) -> nn.Linear:
        layer = copy.deepcopy(self.base)
        with torch.no_grad():
            layer.weight += self.up.weight @ self.down.weight
        return layer


def built(name: str, **options: object) -> Head:
    torch.manual_seed(0)
    counts = {"class_counts": [50, 40, 30, 20, 10]} if takes_class_counts(name) else {}
    return build_head(name, D, K, **counts, **options)


def quantized(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)


def adapted(head: Head) -> tuple[Head, Head]:
    """Return a head with low-rank corrections in all its layers, and one with them merged."""
    torch.manual_seed(3)
    merged = copy.deepcopy(head)
    for name in ("classifier", *head.branches()):
        layer = LowRank(getattr(head, name))
        setattr(head, name, layer)
        setattr(merged, name, layer.merged())
    return head, merged


@pytest.mark.parametrize("name", NAMES)
def test_a_head_quantized_to_int8_predicts_nearly_as_in_float(name: str) -> None:
    head = built(name).eval()
    with torch.no_grad():
        expected = head(FEATURES).exp()
        found = quantized(head)(FEATURES).exp()
    # 8 bits for weights and features: logits off by a few hundredths, LDAM's by 30 times as much.
    assert 0 < float((found - expected).abs().max()) < (0.1 if "ldam" in name else 0.03)
    torch.testing.assert_close(found.sum(-1), torch.ones(40))


def test_an_attached_network_is_quantized_as_a_whole() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, K))
    model = attach(network, "dropmax", layer="2").eval()
    expected = copy.deepcopy(model)(FEATURES).exp()
    found = quantized(model)
    assert not any(type(m) is nn.Linear for m in found.modules())
    torch.testing.assert_close(found(FEATURES).exp(), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("name", ["dropmax", "attention", "dropmax-mixed"])
def test_retain_probabilities_are_read_from_a_quantized_head(name: str) -> None:
    head = built(name).eval()
    expected = head.retain_prob(FEATURES)
    torch.testing.assert_close(quantized(head).retain_prob(FEATURES), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in NAMES if "ldam" not in name])
def test_an_adapter_in_a_layer_acts_as_if_merged(name: str, dtype: torch.dtype) -> None:
    head, merged = adapted(built(name, dtype=dtype))
    if dtype == torch.bfloat16:  # merged in double, for the sum has more digits than bfloat16
        merged = adapted(built(name, dtype=dtype))[0]
        for layer in ("classifier", *merged.branches()):
            setattr(merged, layer, getattr(merged, layer).double().merged())
    features = FEATURES.to(merged.classifier.weight.dtype)
    found, expected = head.eval()(features).exp(), merged.eval()(features).exp()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    head.train()(FEATURES, TARGET).loss.backward()
    assert head.classifier.up.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["ldam", "ldam-drw"])
def test_a_cosine_head_refuses_a_layer_whose_weights_it_cannot_read(name: str) -> None:
    head, _ = adapted(built(name))
    with pytest.raises(TypeError, match=r"must be a product with its weights, .* got LowRank"):
        head.eval()(FEATURES)


def test_the_prior_held_constant_is_that_of_the_adapted_layer() -> None:
    head, merged = adapted(built("dropmax", detach="parameters", temperature=1.0))
    noise = torch.zeros(1, 40, K)
    found, expected = (h(FEATURES, TARGET, noise=noise).loss for h in (head, merged))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_norm_parametrization_acts(name: str) -> None:
    head = built(name).eval()
    expected = head(FEATURES)
    for layer in (head.classifier, *head.branches().values()):
        nn.utils.parametrizations.weight_norm(layer)
    torch.testing.assert_close(head(FEATURES), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        head.classifier.parametrizations.weight.original0.mul_(2.0)  # the rows' norms
        logits = 2 * F.linear(FEATURES, built(name).classifier.weight)
    if "ldam" not in name:  # cosines do not see norms
        bias = head.classifier.bias
        torch.testing.assert_close(head.logits(FEATURES), logits + bias, rtol=1e-5, atol=1e-5)


def test_a_hook_on_a_half_precision_layer_is_called_in_full_precision() -> None:
    head = built("softmax", dtype=torch.bfloat16).eval()
    expected = head(FEATURES)
    seen: list[torch.dtype] = []
    head.classifier.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    torch.testing.assert_close(head(FEATURES), expected, rtol=0, atol=0)
    assert seen == [torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_hooks_of_the_classifier_run_and_change_nothing_by_themselves(
    name: str, dtype: torch.dtype
) -> None:
    head = built(name, dtype=dtype, bias=True).eval()
    expected = head(FEATURES)
    seen: list[str] = []
    head.classifier.register_forward_pre_hook(lambda module, args: seen.append("before"))
    head.classifier.register_forward_hook(lambda module, args, out: seen.append("after"))
    head.classifier.register_full_backward_pre_hook(lambda module, grad: seen.append("back"))
    torch.testing.assert_close(head(FEATURES), expected, rtol=1e-4, atol=1e-4)
    assert seen == ["before", "after"]
    head.train()(FEATURES.clone().requires_grad_(), TARGET).loss.backward()
    assert "back" in seen


def logits_of_weights(head: Head, weight: Tensor) -> Tensor:
    """Return a head's logits by hand, from the weights that its classifier should have."""
    bias = head.classifier.bias
    if hasattr(head, "scale"):  # LDAM's cosines
        lengths = FEATURES.norm(dim=-1, keepdim=True) * weight.norm(dim=-1)
        logits = head.scale * (FEATURES @ weight.T) / lengths
    else:
        logits = FEATURES @ weight.T
    return logits if bias is None else logits + bias


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_classifier_trains_and_stays_pruned(name: str) -> None:
    head = built(name)
    torch.manual_seed(4)
    prune.random_unstructured(head.classifier, "weight", amount=0.5)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        head(FEATURES, TARGET).loss.backward()
        optimizer.step()
    weight = head.classifier.weight_orig * head.classifier.weight_mask
    torch.testing.assert_close(head.eval().logits(FEATURES), logits_of_weights(head, weight))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_of_the_old_weight_norm_trains(name: str) -> None:
    head = built(name)
    nn.utils.weight_norm(head.classifier)
    directions = head.classifier.weight_v.detach().clone()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        head(FEATURES, TARGET).loss.backward()
        optimizer.step()
    assert not torch.equal(head.classifier.weight_v, directions)
    weight = head.classifier.weight_g * F.normalize(head.classifier.weight_v, dim=-1)
    torch.testing.assert_close(head.eval().logits(FEATURES), logits_of_weights(head, weight))
