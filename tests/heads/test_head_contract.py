"""What holds for every head alike: shapes, reductions, ignored rows, class weights, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from counted_heads import build_head

from lastlayer.heads import HEADS, Head, HeadOutput

N, D, K = 6, 5, 4
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
STOCHASTIC = [
    "sampled", "sampled-learned", "class-dropout", "dropmax-prior", "dropmax", "dropmax-iclr"
]  # fmt: skip
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 3, 1, 2, 2, 0])

every_head = pytest.mark.parametrize("name", NAMES)


def make(name: str, num_classes: int = K, seed: int = 0, **options) -> Head:
    torch.manual_seed(seed)
    return build_head(name, D, num_classes, dtype=torch.float64, **options)


@every_head
def test_a_target_gives_a_loss_that_is_the_sum_of_its_terms(name):
    out = make(name)(FEATURES, TARGET)
    assert isinstance(out, HeadOutput)
    assert "nll" in out.terms
    assert out.loss.shape == ()
    torch.testing.assert_close(out.loss, sum(out.terms.values()))


@every_head
def test_an_evaluated_head_returns_normalized_log_probabilities(name):
    head = make(name).eval()
    log_prob = head(FEATURES)
    assert torch.equal(log_prob, head.log_prob(FEATURES))
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(N, dtype=torch.float64))
    assert head.predict(FEATURES).tolist() == log_prob.argmax(-1).tolist()


@every_head
def test_in_training_a_head_that_needs_the_target_refuses_to_go_without(name):
    head = make(name)
    if not head.needs_target_in_training:
        assert head(FEATURES).shape == (N, K)
        return
    with pytest.raises(ValueError, match="needs the target in training mode"):
        head(FEATURES)


# A head with class weights of its own has torch's weighted mean.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "class-balanced"])
def test_reductions_agree(name, draw_noise):
    head = make(name)
    noise = draw_noise(head, N)
    outs = {}
    for head.reduction in ("none", "sum", "mean"):
        outs[head.reduction] = head.eval()(FEATURES, TARGET, noise=noise)
    for term, rows in outs["none"].terms.items():
        assert rows.shape == (N,)
        torch.testing.assert_close(outs["sum"].terms[term], rows.sum())
        torch.testing.assert_close(outs["mean"].terms[term], rows.mean())
    torch.testing.assert_close(outs["mean"].loss, outs["none"].loss.mean())


@every_head
def test_sequences_and_single_examples_are_rows_in_another_shape(name, draw_noise):
    head = make(name, reduction="none").eval()
    noise = draw_noise(head, 2, 3)
    rows = None if noise is None else noise.reshape(*noise.shape[:-3], N, K)
    sequence = head(FEATURES.reshape(2, 3, D), TARGET.reshape(2, 3), noise=noise).loss
    assert sequence.shape == (2, 3)
    torch.testing.assert_close(sequence.flatten(), head(FEATURES, TARGET, noise=rows).loss)
    assert head.log_prob(FEATURES.reshape(2, 3, D)).shape == (2, 3, K)
    single = None if rows is None else rows[..., 0, :]
    one = head(FEATURES[0], TARGET[0], noise=single).loss
    torch.testing.assert_close(one, sequence[0, 0])


@every_head
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_ignored_rows_leave_every_term_and_every_mean(name, reduction, draw_noise):
    head = make(name, reduction=reduction, ignore_index=-7, weight=torch.rand(K)).eval()
    keep = torch.tensor([True, False, True, True, False, True])
    target = torch.where(keep, TARGET, -7)
    noise = draw_noise(head, N)
    out = head(FEATURES, target, noise=noise)
    kept_noise = None if noise is None else noise[..., keep, :]
    rest = head(FEATURES[keep], TARGET[keep], noise=kept_noise)
    for term, value in out.terms.items():
        if reduction == "none":
            assert not value[~keep].any()
            value = value[keep]
        torch.testing.assert_close(value, rest.terms[term])


@every_head
@pytest.mark.parametrize("size", [N, 0])
def test_without_a_row_that_counts_the_loss_is_zero_with_zero_gradient(name, size):
    head = make(name)
    features = FEATURES[:size].clone().requires_grad_()
    out = head(features, torch.full((size,), -100))
    out.loss.backward()
    assert out.loss == 0
    assert not any(value.any() for value in out.terms.values())
    gradients = [features.grad, *(p.grad for p in head.parameters())]
    assert all(not g.any() and g.isfinite().all() for g in gradients if g is not None)


# Smoothing entangles weights and targets, as in torch: see test_softmax_head.py.
@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("label-smoothing", "class-balanced")]
)
def test_class_weights_act_on_the_nll_alone_with_torchs_mean(name, draw_noise):
    weight = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
    plain, weighted = make(name, reduction="none"), make(name, weight=weight)
    noise = draw_noise(plain, N)
    rows = plain.eval()(FEATURES, TARGET, noise=noise).terms
    out = weighted.eval()(FEATURES, TARGET, noise=noise).terms
    w = weight[TARGET]
    for term, values in rows.items():
        expected = (w * values).sum() / w.sum() if term == "nll" else values.mean()
        torch.testing.assert_close(out[term], expected)
    weighted.reduction = "none"
    none = weighted(FEATURES, TARGET, noise=noise).terms["nll"]
    torch.testing.assert_close(none, w * rows["nll"])


@every_head
def test_gradients_reach_the_features_and_every_parameter(name):
    head, features = make(name), FEATURES.clone().requires_grad_()
    head(features, TARGET).loss.backward()
    for tensor in (features, *head.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


@every_head
def test_few_classes_are_no_special_case(name):
    for num_classes in (1, 2):
        head = make(name, num_classes)
        out = head(FEATURES, torch.zeros(N, dtype=torch.int64))
        out.loss.backward()
        assert out.loss.isfinite()
        if num_classes == 1:
            assert out.terms["nll"] == 0
            assert not head.eval()(FEATURES).any()


@every_head
def test_state_and_copies_give_the_same_head(name, draw_noise):
    head, other = make(name), make(name, seed=1)
    noise = draw_noise(head, N)
    loss = head.eval()(FEATURES, TARGET, noise=noise).loss
    assert other.eval()(FEATURES, TARGET, noise=noise).loss != loss
    other.load_state_dict(head.state_dict())
    for same in (other, copy.deepcopy(head)):
        assert same(FEATURES, TARGET, noise=noise).loss == loss
    assert copy.deepcopy(head).classifier.weight is not head.classifier.weight


@every_head
def test_every_parameter_is_in_one_optimizer_group_and_branches_are_not_decayed(name):
    head = make(name)
    groups = head.param_groups(weight_decay=0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in head.parameters())
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for parameter, wanted in (
        *((p, 0.1) for p in head.classifier.parameters()),
        *((p, 0.0) for branch in head.branches().values() for p in branch.parameters()),
    ):
        assert decay[id(parameter)] == wanted
    torch.optim.SGD(groups, lr=0.1)


@every_head
def test_repr_names_the_sizes_and_what_differs_from_the_default(name):
    text = make(name, reduction="sum").extra_repr()
    assert f"in_features={D}, num_classes={K}" in text
    assert "reduction='sum'" in text


@every_head
def test_without_bias_no_branch_has_one(name):
    assert not any(key.endswith("bias") for key in make(name, bias=False).state_dict())


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_generator_fixes_the_draw(name):
    head = make(name).eval()
    losses = [
        head(FEATURES, TARGET, generator=torch.Generator().manual_seed(seed)).terms["nll"]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
