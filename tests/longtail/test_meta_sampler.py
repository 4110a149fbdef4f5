import copy
import io
from collections import UserDict

import pytest
import torch
import torch.nn.functional as F
from counted_heads import build_head
from meta_gradient import (
    linear_weight_gradient,
    reweighting_rate_gradient,
    sampling_rate_gradient,
)
from torch import nn
from torch.utils.data import DataLoader

from lastlayer.functional.meta_sampling import draw_classes, gumbel_noise, rate_weights
from lastlayer.heads import (
    HEADS,
    BalancedSoftmax,
    Classifier,
    DropMax,
    SampledSoftmax,
    Softmax,
)
from lastlayer.longtail import MetaSampler, class_counts, row_losses, virtual_meta_loss

K, D, B, M = 5, 4, 9, 7
COUNTS = torch.tensor([60, 30, 9, 3, 1])
LR = 0.3


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(7)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    head = BalancedSoftmax(D, K, class_counts=COUNTS, dtype=torch.float64)
    with torch.no_grad():
        head.classifier.weight.copy_(randn(K, D))
        head.classifier.bias.copy_(randn(K))
    rates = randn(K).requires_grad_()
    noise = gumbel_noise(randn(B, K), generator=generator)
    meta = randn(M, D), torch.randint(K, (M,), generator=generator)
    return head, randn(B, D), rates, noise, meta


def closed_form(head, features, target, meta, weights=None):
    return linear_weight_gradient(
        head.classifier.weight.detach(),
        features,
        target,
        *meta,
        lr=LR,
        bias=head.classifier.bias.detach(),
        offset=COUNTS.double().log(),
        weights=weights,
    )


def sampling_gradient(problem, temperature, lr=LR):
    head, features, rates, noise, meta = problem
    drawn = draw_classes(rates, COUNTS, B, temperature=temperature, noise=noise)
    loss = virtual_meta_loss(head, features, drawn.classes, drawn.weights, *meta, lr=lr)
    return torch.autograd.grad(loss, rates)[0], drawn


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_samplers_gradient_is_the_closed_form(problem, temperature):
    head, features, rates, noise, meta = problem
    gradient, drawn = sampling_gradient(problem, temperature)
    expected = sampling_rate_gradient(
        closed_form(head, features, drawn.classes, meta),
        rates.detach(),
        COUNTS,
        noise,
        temperature=temperature,
    )
    assert float(gradient.abs().max()) > 1e-3
    assert float((gradient - expected).abs().max()) < 1e-12


@pytest.mark.parametrize("normalize", [False, True])
def test_the_reweighters_gradient_is_the_closed_form_and_the_difference_quotient(
    problem, normalize
):
    head, features, rates, _, meta = problem
    target = torch.arange(B) % K

    def meta_loss(logits):
        weights = rate_weights(logits, target, normalize=normalize)
        return virtual_meta_loss(head, features, target, weights, *meta, lr=LR)

    gradient = torch.autograd.grad(meta_loss(rates), rates)[0]
    weights = rate_weights(rates.detach(), target, normalize=normalize)
    expected = reweighting_rate_gradient(
        closed_form(head, features, target, meta, weights),
        rates.detach(),
        target,
        normalize=normalize,
    )
    assert float((gradient - expected).abs().max()) < 1e-12
    assert torch.autograd.gradcheck(meta_loss, (rates,))


def test_the_gradient_by_weight_is_the_difference_quotient_and_the_step_plain_descent(problem):
    head, features, _, _, meta = problem
    target = torch.arange(B) % K
    weights = torch.ones(B, dtype=torch.float64, requires_grad=True)

    def by_hand(given):
        twin = copy.deepcopy(head)
        loss = (given * row_losses(twin, features, target)).mean()
        loss.backward()
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter -= LR * parameter.grad
        return F.cross_entropy(twin.classifier(meta[0]), meta[1])

    def meta_loss(given):
        return virtual_meta_loss(head, features, target, given, *meta, lr=LR)

    torch.testing.assert_close(meta_loss(weights), by_hand(weights.detach()))
    assert torch.autograd.gradcheck(meta_loss, (weights,))
    gradient = torch.autograd.grad(meta_loss(weights), weights)[0]
    torch.testing.assert_close(gradient, closed_form(head, features, target, meta))


def test_without_a_virtual_step_the_rates_have_no_gradient(problem):
    gradient, _ = sampling_gradient(problem, 1.0, lr=0.0)
    assert gradient.eq(0).all()


def test_a_common_factor_of_the_rates_has_no_gradient_unless_weights_are_not_normalized(problem):
    head, features, rates, _, meta = problem
    scale = 1 - rates.detach().sigmoid()
    gradient, _ = sampling_gradient(problem, 0.5)
    assert abs(float((gradient / scale).sum())) < 1e-15
    target = torch.arange(B) % K
    for normalize in (True, False):
        weights = rate_weights(rates, target, normalize=normalize)
        loss = virtual_meta_loss(head, features, target, weights, *meta, lr=LR)
        common = float((torch.autograd.grad(loss, rates)[0] / scale).sum())
        assert (abs(common) < 1e-15) == normalize


def batch(in_features=D, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(B, in_features, generator=generator)
    meta = torch.randn(M, in_features, generator=generator), torch.arange(M) % K
    return features, meta


def state_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", HEADS.names())
def test_every_head_can_be_the_virtual_steps_and_stays_as_it_is(name):
    torch.manual_seed(0)
    head, sampler = build_head(name, D, K), MetaSampler(COUNTS)
    features, meta = batch()
    drawn = sampler.draw(B)
    before, rates = state_of(head), sampler.rates()
    loss = sampler.meta_step(head, features, drawn.classes, drawn.weights, *meta, lr=LR)
    after = state_of(head)
    assert loss.dim() == 0
    assert not loss.requires_grad
    assert all(before[key].equal(after[key]) for key in before)
    assert all(parameter.grad is None for parameter in head.parameters())
    assert head.reduction == "mean"
    assert not rates.equal(sampler.rates())


def test_a_heads_masks_come_from_the_generator():
    head, (features, meta) = DropMax(D, K), batch()
    weights, target = torch.ones(B), torch.arange(B) % K
    first, again, other = (
        virtual_meta_loss(
            head,
            features,
            target,
            weights,
            *meta,
            lr=LR,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    )
    assert first.equal(again)
    assert not first.equal(other)


def test_buffers_that_count_do_not_count_the_virtual_step():
    head = SampledSoftmax(D, K, proposal="learned")
    features, meta = batch()
    before = state_of(head)
    virtual_meta_loss(head, features, torch.arange(B) % K, torch.ones(B), *meta, lr=LR)
    assert all(value.equal(before[name]) for name, value in head.state_dict().items())


def test_of_a_classifier_whatever_is_trained_takes_the_step_and_batch_norm_does_not_move():
    backbone = nn.Sequential(nn.Linear(3, D), nn.BatchNorm1d(D), nn.ReLU())
    classifier = Classifier(backbone, Softmax(D, K))
    features, meta = batch(in_features=3)
    target = torch.arange(B) % K
    weights = torch.ones(B, requires_grad=True)
    before = state_of(classifier)
    whole = virtual_meta_loss(classifier, features, target, weights, *meta, lr=LR)
    backbone.requires_grad_(False)
    head_only = virtual_meta_loss(classifier, features, target, weights, *meta, lr=LR)
    assert not whole.equal(head_only)
    assert all(value.equal(before[name]) for name, value in classifier.state_dict().items())
    classifier.head.requires_grad_(False)
    with pytest.raises(ValueError, match="requires a gradient"):
        virtual_meta_loss(classifier, features, target, weights, *meta, lr=LR)


class Texts(nn.Module):
    """A backbone of keywords: tokens and their mask."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, D)

    def forward(self, ids, mask):
        return (self.words(ids) * mask[..., None]).sum(1)


def test_inputs_by_name_or_several_take_the_step_of_the_tensor_they_stand_for():
    """Tokens are the rows of a one-hot matrix, times the embedding's weight."""
    generator = torch.Generator().manual_seed(0)
    ids, mask = torch.randint(9, (2, B, 6), generator=generator)
    mask = mask > 2
    target, weights = torch.arange(B) % K, torch.ones(B, requires_grad=True)
    torch.manual_seed(0)
    texts, counted = Texts(), nn.Linear(9, D, bias=False)
    counted.weight = nn.Parameter(texts.words.weight.detach().T.clone())
    head = Softmax(D, K)
    counts = (nn.functional.one_hot(ids, 9) * mask[..., None]).sum(1).float()
    found, rows = [], []
    for backbone, inputs in (
        (counted, counts),
        (texts, {"ids": ids, "mask": mask}),
        (texts, UserDict(mask=mask, ids=ids)),
        (texts, (ids, mask)),
    ):
        classifier = Classifier(backbone, head)
        loss = virtual_meta_loss(classifier, inputs, target, weights, inputs, target, lr=LR)
        found.append((loss, torch.autograd.grad(loss, weights)[0]))
        rows.append(row_losses(classifier, inputs, target))
        sampler = MetaSampler(COUNTS)
        drawn = sampler.draw(B, generator=torch.Generator().manual_seed(0))
        sampler.meta_step(classifier, inputs, drawn.classes, drawn.weights, inputs, target, lr=LR)
        found[-1] += (sampler.rates(),)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
    for other in rows[1:]:
        torch.testing.assert_close(other, rows[0])


def test_batches_of_a_loader_of_texts_train_the_rates():
    examples = [
        {"ids": torch.randint(9, (6,)), "mask": torch.ones(6), "labels": i % K}
        for i in range(2 * B)
    ]
    loader = DataLoader(examples, B)
    assert class_counts(loader).tolist() == torch.bincount(torch.arange(2 * B) % K).tolist()
    sampler, classifier = MetaSampler(class_counts(loader)), Classifier(Texts(), Softmax(D, K))
    for batch in loader:
        target = batch.pop("labels")
        sampler.meta_step(classifier, batch, target, sampler.weights(target), batch, target, lr=LR)
    assert not sampler.rates().equal(MetaSampler(COUNTS).rates())


def test_row_losses_have_the_heads_loss_for_a_mean():
    head, (features, _) = Softmax(D, K, label_smoothing=0.1), batch()
    target = torch.arange(B) % K
    rows = row_losses(head, features, target)
    assert rows.shape == (B,)
    torch.testing.assert_close(rows.mean(), head(features, target).loss)


def test_a_saved_sampler_goes_on_to_the_same_bits():
    head, (features, meta) = Softmax(D, K), batch()

    def steps(sampler, seeds):
        for seed in seeds:
            drawn = sampler.draw(B, generator=torch.Generator().manual_seed(seed))
            sampler.meta_step(head, features, drawn.classes, drawn.weights, *meta, lr=LR)
        return sampler

    whole = steps(MetaSampler(COUNTS), range(6))
    file = io.BytesIO()
    torch.save(steps(MetaSampler(COUNTS), range(3)).state_dict(), file)
    file.seek(0)
    resumed = MetaSampler(COUNTS)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert steps(resumed, range(3, 6)).rates().equal(whole.rates())
    half = steps(MetaSampler(COUNTS), range(3))
    twin = copy.deepcopy(half)
    assert steps(half, range(3, 6)).rates().equal(steps(twin, range(3, 6)).rates())


def test_the_first_step_is_adams_sign_step_down_the_gradient():
    head, (features, meta) = Softmax(D, K), batch()
    sampler = MetaSampler(COUNTS, lr=0.02)
    drawn = sampler.draw(B, generator=torch.Generator().manual_seed(0))
    loss = virtual_meta_loss(head, features, drawn.classes, drawn.weights, *meta, lr=LR)
    gradient = torch.autograd.grad(loss, sampler.rate_logits, retain_graph=True)[0]
    sampler.meta_step(head, features, drawn.classes, drawn.weights, *meta, lr=LR)
    moved = gradient.abs() > 1e-5  # Adam's epsilon is 1e-8
    expected = -0.02 * gradient.sign()
    assert bool(moved.any())
    torch.testing.assert_close(
        sampler.rate_logits.detach()[moved], expected[moved], rtol=2e-3, atol=0
    )


def test_the_reweighter_takes_the_rates_as_weights():
    head, (features, meta) = Softmax(D, K), batch()
    sampler, target = MetaSampler(COUNTS, initial_power=1.0), torch.arange(B) % K
    before = sampler.rates()
    sampler.meta_step(head, features, target, sampler.weights(target), *meta, lr=LR)
    assert not before.equal(sampler.rates())
    torch.testing.assert_close(
        MetaSampler(COUNTS, initial_power=1.0).class_prob(), torch.full((K,), 0.2)
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"lr": 0.0}, "lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"temperature": 0.0}, "temperature"),
        ({"initial_power": -1.0}, "power"),
        ({"class_counts": [3, 0]}, "class_counts"),
    ],
)
def test_a_bad_argument_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        MetaSampler(**({"class_counts": [3, 1]} | arguments))


def test_weights_without_a_gradient_or_of_another_length_are_refused():
    head, (features, meta), sampler = Softmax(D, K), batch(), MetaSampler(COUNTS)
    drawn = sampler.draw(B)
    with pytest.raises(ValueError, match=r"draw\(\) or weights\(\)"):
        sampler.meta_step(head, features, drawn.classes, torch.ones(B), *meta, lr=LR)
    with pytest.raises(ValueError, match=r"shape \(B,\)"):
        sampler.meta_step(head, features, drawn.classes, drawn.weights[1:], *meta, lr=LR)
    with pytest.raises(ValueError, match=rf"inputs must have one row per label, {B}; got {B - 1}"):
        sampler.meta_step(head, features[1:], drawn.classes, drawn.weights, *meta, lr=LR)
    with pytest.raises(ValueError, match="meta_inputs must have one row per label"):
        sampler.meta_step(head, features, drawn.classes, drawn.weights, meta[0][1:], meta[1], lr=LR)
    with pytest.raises(TypeError, match=r"inputs must be a tensor, a tuple .* got list"):
        sampler.meta_step(head, features.tolist(), drawn.classes, drawn.weights, *meta, lr=LR)
    with pytest.raises(ValueError, match="lr"):
        sampler.meta_step(head, features, drawn.classes, drawn.weights, *meta, lr=-1.0)


def test_a_gradient_that_is_not_finite_stops_before_the_rates_are_lost():
    head, (features, meta), sampler = Softmax(D, K), batch(), MetaSampler(COUNTS)
    drawn = sampler.draw(B)
    with pytest.raises(FloatingPointError, match="learning rate"):
        sampler.meta_step(head, features * 1e30, drawn.classes, drawn.weights, *meta, lr=1e30)
    assert sampler.rates().tolist() == [0.5] * K


@pytest.mark.parametrize("name", HEADS.names())
def test_a_heads_logits_are_its_linear_layers_outputs(name):
    head, (features, _) = build_head(name, D, K), batch()
    outputs = head.classifier(features)
    if name.startswith("ldam"):
        norms = features.norm(dim=1, keepdim=True) * head.classifier.weight.norm(dim=1)
        outputs = head.scale * outputs / norms
    torch.testing.assert_close(head.logits(features), outputs)
    assert head.logits(features.half()).dtype == torch.float32
    with pytest.raises(ValueError, match="features"):
        head.logits(features[:, 1:])
