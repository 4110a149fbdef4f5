"""Classes added to a head: old rows stay bit for bit, new ones are drawn as in a fresh head."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from counted_heads import build_head
from scipy import stats
from torch import nn

from lastlayer.heads import (
    HEADS,
    LDAM,
    Head,
    grow,
    takes_class_counts,
)
from lastlayer.heads.linear import init_branch_rows, init_classifier_rows

N, D, K, M = 6, 5, 4, 3
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
GROWN = torch.tensor([20, 20, 20, 4, 300, 80, 9])
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 6, 1, 4, 5, 0])

every_head = pytest.mark.parametrize("name", NAMES)


def make(name: str, num_classes: int = K, seed: int = 0, **options) -> Head:
    torch.manual_seed(seed)
    return build_head(name, D, num_classes, **({"dtype": torch.float64} | options))


def counts_of(name: str) -> dict[str, torch.Tensor]:
    return {"class_counts": GROWN} if takes_class_counts(name) else {}


def grown(name: str, num_new: int = M, seed: int = 0, **options) -> Head:
    head = make(name, seed=seed, **options)
    grow(head, num_new, class_counts=GROWN[: K + num_new])
    return head


def layers(head: Head) -> dict[str, nn.Linear]:
    return {"classifier": head.classifier, **head.branches()}


@every_head
@pytest.mark.parametrize("bias", [True, False])
def test_old_rows_stay_bit_for_bit_and_old_logits_with_them(name, bias):
    head = make(name, bias=bias)
    # Sums of small integers are exact in any order, so that no blocking of a product hides a bit.
    features = torch.randint(-9, 9, (N, D)).double()
    with torch.no_grad():
        for layer in layers(head).values():
            layer.weight.copy_(torch.randint(-9, 9, (K, D)))
    before = copy.deepcopy(head)
    grow(head, M, class_counts=GROWN)
    assert head.num_classes == K + M
    for part, layer in layers(head).items():
        old = layers(before)[part]
        assert layer.out_features == len(layer.weight) == K + M
        assert torch.equal(layer.weight[:K], old.weight)
        assert (layer.bias is None) == (old.bias is None)
        if layer.bias is not None:
            assert torch.equal(layer.bias[:K], old.bias)
    close = head.logits(FEATURES)[:, :K]
    torch.testing.assert_close(close, before.logits(FEATURES), rtol=0, atol=1e-12)
    if not isinstance(head, LDAM) and not bias:  # cosines are no integers
        assert torch.equal(head.logits(features)[:, :K], before.logits(features))


@every_head
def test_the_grown_head_learns_and_predicts_all_classes(name):
    head = grown(name)
    out = head(FEATURES, TARGET)
    out.loss.backward()
    assert out.loss.isfinite()
    for parameter in head.parameters():
        assert parameter.grad.shape == parameter.shape
        assert parameter.grad.isfinite().all()
        assert parameter.grad[K:].any()
    log_prob = head.eval()(FEATURES)
    assert log_prob.shape == (N, K + M)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(N, dtype=torch.float64))
    torch.optim.SGD(head.param_groups(0.1), lr=0.1).step()


@every_head
@pytest.mark.parametrize("weighted", [False, True])
def test_its_state_is_that_of_a_head_built_with_as_many_classes(name, weighted, draw_noise):
    old, new = torch.rand(K) + 0.5, torch.rand(M) + 0.5
    head = make(name, **({"weight": old} if weighted else {}))
    grow(head, M, class_counts=GROWN, weight=new if weighted else None)
    options = {"weight": torch.cat([old, new])} if weighted else {}
    fresh = make(name, K + M, seed=1, **counts_of(name), **options)
    state, wanted = head.state_dict(), fresh.state_dict()
    assert list(state) == list(wanted)
    for key in set(state) - set(dict(head.named_parameters())):
        assert torch.equal(state[key], wanted[key]), key
        assert state[key].dtype == wanted[key].dtype, key
    fresh.load_state_dict(state)
    assert repr(head) == repr(fresh)
    noise = draw_noise(head, N)
    for same in (head, fresh):
        same.eval()
        if isinstance(same, LDAM):
            same.set_progress(1.0)
    assert torch.equal(head(FEATURES), fresh(FEATURES))
    assert head(FEATURES, TARGET, noise=noise).loss == fresh(FEATURES, TARGET, noise=noise).loss


@every_head
def test_copies_and_pickles_of_a_grown_head_predict_and_grow_as_it_does(name):
    head = grown(name, 1)
    file = io.BytesIO()
    torch.save(head, file)
    file.seek(0)
    copies = [copy.deepcopy(head), torch.load(file, weights_only=False)]
    for same in (head, *copies):
        grow(same, 2, class_counts=GROWN, generator=torch.Generator().manual_seed(3))
    expected = head.eval()(FEATURES)
    for same in copies:
        assert torch.equal(same.eval()(FEATURES), expected)
        assert same.classifier.weight is not head.classifier.weight


@every_head
def test_growing_twice_gives_the_shapes_of_growing_once(name):
    twice, once = grown(name, 1), grown(name, 3)
    grow(twice, 2, class_counts=GROWN)
    assert twice.num_classes == K + 3
    assert {k: v.shape for k, v in twice.state_dict().items()} == {
        k: v.shape for k, v in once.state_dict().items()
    }
    for (key, first), second in zip(
        twice.named_buffers(), (b for _, b in once.named_buffers()), strict=True
    ):
        assert torch.equal(first, second), key


@every_head
def test_a_generator_fixes_the_new_rows_and_leaves_the_default_one_alone(name):
    heads = [make(name) for _ in range(3)]
    state = torch.get_rng_state()
    for head, seed in zip(heads, (1, 1, 2), strict=True):
        generator = torch.Generator().manual_seed(seed)
        grow(head, M, class_counts=GROWN, generator=generator)
    assert torch.equal(torch.get_rng_state(), state)
    for first, same, other in zip(*(layers(h).values() for h in heads), strict=True):
        assert torch.equal(first.weight, same.weight)
        assert not torch.equal(first.weight[K:], other.weight[K:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_new_parameters_keep_dtype_mode_and_whether_they_learn(dtype):
    head = make("dropmax", dtype=dtype).eval()
    head.classifier.bias.requires_grad_(False)
    head.retain.requires_grad_(False)
    grow(head, M)
    assert {p.dtype for p in head.parameters()} == {dtype}
    assert not head.training
    assert [n for n, p in head.named_parameters() if not p.requires_grad] == [
        "classifier.bias",
        "retain.weight",
        "retain.bias",
    ]
    assert all(p.is_leaf and type(p) is nn.Parameter for p in head.parameters())


# -- how new rows are drawn -----------------------------------------------------------------------


def test_rows_are_drawn_as_torch_draws_them():
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(5)
        plain = nn.Linear(D, M, dtype=dtype)
        rows = nn.Linear(D, M, dtype=dtype)
        init_classifier_rows(rows, torch.Generator().manual_seed(5))
        assert torch.equal(rows.weight, plain.weight)
        assert torch.equal(rows.bias, plain.bias)
        torch.manual_seed(6)
        expected = nn.init.xavier_uniform_(torch.empty(M, D, dtype=dtype))
        init_branch_rows(rows, M, torch.Generator().manual_seed(6))
        assert torch.equal(rows.weight, expected)
        assert not rows.bias.any()


def test_new_rows_have_the_distribution_of_a_fresh_head_of_the_new_size():
    wide, few, many = 50, 10, 400
    head = build_head("dropmax", wide, few)
    grow(head, many, generator=torch.Generator().manual_seed(0))
    bounds = {"classifier": 1 / math.sqrt(wide)}
    for part, layer in layers(head).items():
        bound = bounds.get(part, math.sqrt(6 / (wide + few + many)))
        drawn = layer.weight[few:].detach().double().flatten() / bound
        assert drawn.abs().max() <= 1 + 1e-6
        # 20,000 uniform draws: mean within 5 standard errors, then the whole distribution.
        assert abs(drawn.mean()) * math.sqrt(3 * len(drawn)) < 5
        assert abs(drawn.square().mean() - 1 / 3) * math.sqrt(len(drawn) / (4 / 45)) < 5
        assert stats.kstest(drawn.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-6
    bias = head.classifier.bias[few:].detach().double() * math.sqrt(wide)
    assert stats.kstest(bias.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-6
    assert not head.retain.bias.any()
    assert not head.correction.bias.any()


def test_an_own_initialization_sees_the_new_rows_alone():
    head, seen = make("dropmax"), []

    def zero(rows: nn.Linear) -> None:
        seen.append(tuple(rows.weight.shape))
        assert rows.weight.abs().max() <= 1 / math.sqrt(D)
        nn.init.zeros_(rows.weight)

    grow(head, M, init_classifier=zero)
    assert seen == [(M, D)]
    assert not head.classifier.weight[K:].any()
    assert head.classifier.bias[K:].all()
    assert head.retain.weight[K:].all()
