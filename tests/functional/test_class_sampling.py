"""Class dropout and sampled softmax against enumeration, exact rates and the plain softmax."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom, chisquare

from lastlayer.functional import class_masks
from lastlayer.functional.class_masks import class_dropout_mask, sampled_class_mask
from lastlayer.functional.class_sampling import (
    class_dropout_loss,
    masked_cross_entropy,
    sampled_softmax_loss,
)

PROPOSAL = torch.tensor([8.0, 4.0, 1.0, 2.0, 1.0])


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_logits(*shape: int, dtype: torch.dtype = torch.float64):
    return 2.0 * torch.randn(*shape, generator=generator(22), dtype=dtype)


def exact_draw_probabilities(proposal: np.ndarray, target: int, num_samples: int) -> dict:
    """Probability of each set of negatives when drawn one after another without replacement."""
    others = [k for k in range(len(proposal)) if k != target]
    table: dict[frozenset, float] = {}
    for sequence in itertools.permutations(others, num_samples):
        probability, left = 1.0, sum(proposal[k] for k in others)
        for k in sequence:
            probability *= proposal[k] / left
            left -= proposal[k]
        table[frozenset(sequence)] = table.get(frozenset(sequence), 0.0) + probability
    return table


def within_binomial_interval(count: int, trials: int, probability: float) -> bool:
    low, high = binom.interval(1 - 1e-6, trials, probability)
    return low <= count <= high


# --- class dropout -----------------------------------------------------------------------------


@pytest.mark.parametrize("retain_prob", [0.0, 0.2, 0.6, 1.0])
def test_class_dropout_keeps_the_target_always_and_others_at_the_stated_rate(retain_prob):
    target = torch.arange(10).repeat(2000)
    mask = class_dropout_mask(target, 10, retain_prob, generator=generator())
    assert mask.gather(1, target[:, None]).all()
    kept = mask.sum(0) - 2000
    for count in kept.tolist():
        assert within_binomial_interval(count, 18_000, retain_prob)


def test_class_dropout_draws_classes_and_rows_independently():
    target = torch.zeros(20_000, dtype=torch.int64)
    mask = class_dropout_mask(target, 3, 0.3, generator=generator())
    both = int((mask[:, 1] & mask[:, 2]).sum())
    assert within_binomial_interval(both, 20_000, 0.09)
    successive = int((mask[1:, 1] & mask[:-1, 1]).sum())
    # Neighbouring pairs overlap, so the count spreads more than a binomial; 6 sigma of 3 npq.
    assert abs(successive - 0.09 * 19_999) < 6 * math.sqrt(3 * 0.09 * 0.91 * 19_999)


def test_explicit_noise_decides_the_mask():
    noise = torch.tensor([[0.9, 0.1, 0.5]])
    mask = class_dropout_mask(torch.tensor([0]), 3, 0.5, noise=noise)
    assert mask.tolist() == [[True, True, False]]


@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 3)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_class_dropout_with_retain_prob_one_is_torch_cross_entropy(shape, reduction):
    logits = random_logits(*shape)
    target = logits.flip(0).argmax(0 if len(shape) == 1 else 1)
    ours = class_dropout_loss(logits, target, 1.0, reduction=reduction)
    torch.testing.assert_close(ours, F.cross_entropy(logits, target, reduction=reduction))


def test_class_dropout_with_retain_prob_zero_costs_nothing():
    logits = random_logits(4, 5).requires_grad_()
    loss = class_dropout_loss(logits, torch.tensor([0, 1, 2, 3]), 0.0)
    loss.backward()
    assert loss.item() == 0.0
    assert (logits.grad == 0).all()


def test_mean_class_dropout_loss_is_the_enumeration_over_masks():
    logits, retain_prob = random_logits(4), 0.4
    expected, square = 0.0, 0.0
    for kept in itertools.product([False, True], repeat=3):
        probability = math.prod(retain_prob if z else 1 - retain_prob for z in kept)
        chosen = logits[torch.tensor([True, *kept])]
        loss = float(chosen.logsumexp(0) - logits[0])
        expected += probability * loss
        square += probability * loss**2
    draws = 20_000
    rows = logits.expand(draws, 4)
    target = torch.zeros(draws, dtype=torch.int64)
    mean = class_dropout_loss(rows, target, retain_prob, generator=generator()).item()
    assert abs(mean - expected) < 5 * math.sqrt((square - expected**2) / draws)


# --- sampled softmax ---------------------------------------------------------------------------


@pytest.mark.parametrize("proposal", [None, PROPOSAL], ids=["uniform", "skewed"])
@pytest.mark.parametrize("num_samples", [0, 1, 3, 4])
def test_every_row_holds_its_target_and_exactly_m_distinct_negatives(proposal, num_samples):
    target = torch.arange(5).repeat(200)
    mask, _ = sampled_class_mask(target, 5, num_samples, proposal=proposal, generator=generator())
    assert mask.gather(1, target[:, None]).all()
    assert (mask.sum(1) == num_samples + 1).all()


@pytest.mark.parametrize("proposal", [None, PROPOSAL], ids=["uniform", "skewed"])
def test_sets_of_negatives_have_the_probabilities_of_successive_draws(proposal):
    draws, num_samples, target = 20_000, 2, 1
    weights = np.ones(5) if proposal is None else proposal.double().numpy()
    table = exact_draw_probabilities(weights, target, num_samples)
    mask, _ = sampled_class_mask(
        torch.full((draws,), target), 5, num_samples, proposal=proposal, generator=generator()
    )
    mask[:, target] = False
    sets = [frozenset(np.flatnonzero(row)) for row in mask.numpy()]
    observed = [sets.count(key) for key in table]
    assert sum(observed) == draws
    assert chisquare(observed, [draws * p for p in table.values()]).pvalue > 1e-6


def test_the_set_test_catches_a_sampler_that_forgets_the_proposal():
    draws, target = 20_000, 1
    table = exact_draw_probabilities(PROPOSAL.double().numpy(), target, 2)
    mask, _ = sampled_class_mask(torch.full((draws,), target), 5, 2, generator=generator())
    mask[:, target] = False
    sets = [frozenset(np.flatnonzero(row)) for row in mask.numpy()]
    observed = [sets.count(key) for key in table]
    assert chisquare(observed, [draws * p for p in table.values()]).pvalue < 1e-6


@pytest.mark.parametrize("num_samples", [1, 2, 3])
def test_expected_counts_of_five_classes_are_within_a_tenth_of_the_exact_ones(num_samples):
    for target in range(5):
        exact = np.zeros(5)
        for members, p in exact_draw_probabilities(PROPOSAL.numpy(), target, num_samples).items():
            exact[list(members)] += p
        _, log_count = sampled_class_mask(torch.tensor([target]), 5, num_samples, proposal=PROPOSAL)
        others = np.arange(5) != target
        count = log_count.exp()[0].numpy()
        assert count[others].sum() == pytest.approx(num_samples, rel=1e-5)
        assert np.abs(count - exact)[others].max() < 0.1


def test_expected_counts_are_the_inclusion_rates_of_many_classes():
    # Five weights on 40 classes each; the error of the approximation falls as 1/K.
    proposal, rows = PROPOSAL.repeat(40), 4000
    target = torch.full((rows,), 2)
    mask, log_count = sampled_class_mask(target, 200, 60, proposal=proposal, generator=generator())
    for kind in (0, 1, 3):
        count = int(mask[:, kind::5].sum())
        expected = log_count[0, kind].exp().item()
        # Draws without replacement from one row spread less than independent ones.
        bound = 5 * math.sqrt(expected * (1 - expected) / (40 * rows))
        assert abs(count / (40 * rows) - expected) < bound + 0.1 / 40


def test_expected_counts_of_an_equal_proposal_are_the_uniform_ones_exactly():
    target = torch.tensor([0, 6])
    _, explicit = sampled_class_mask(target, 7, 3, proposal=torch.full((7,), 2.0))
    _, uniform = sampled_class_mask(target, 7, 3)
    torch.testing.assert_close(explicit, uniform.expand(2, 7))
    assert uniform.exp()[0].item() == pytest.approx(3 / 6)


def test_expected_counts_hold_for_a_proposal_over_many_orders_of_magnitude():
    proposal = torch.logspace(-12, 0, 2000)
    target = torch.tensor([0, 1999])
    for num_samples in (1, 1000, 1998):
        _, log_count = sampled_class_mask(target, 2000, num_samples, proposal=proposal)
        others = torch.ones(2, 2000).scatter(1, target[:, None], 0.0)
        total = (log_count.double().exp() * others).sum(1)
        torch.testing.assert_close(total, torch.full_like(total, num_samples), rtol=1e-4, atol=0)


@pytest.mark.parametrize("proposal", [None, PROPOSAL], ids=["uniform", "skewed"])
def test_sampled_softmax_with_all_negatives_is_torch_cross_entropy(proposal):
    logits = random_logits(4, 5).requires_grad_()
    target = torch.tensor([0, 1, -100, 4])
    weight = torch.tensor([1.0, 0.3, 2.0, 0.0, 0.7], dtype=torch.float64)
    for reduction in ("none", "mean", "sum"):
        options = {"weight": weight, "reduction": reduction}
        ours = sampled_softmax_loss(logits, target, 4, proposal, **options)
        expected = F.cross_entropy(logits, target, **options)
        assert torch.equal(ours, expected)
    (grad,) = torch.autograd.grad(sampled_softmax_loss(logits, target, 4, proposal), logits)
    expected = torch.autograd.grad(F.cross_entropy(logits, target), logits)[0]
    torch.testing.assert_close(grad, expected)


def test_sampled_softmax_is_class_dropout_given_the_number_kept():
    # Given m kept negatives, class dropout takes each set of m with the same probability: the two
    # losses take the same values with the same frequencies.
    draws, num_samples = 30_000, 2
    rows = random_logits(5).expand(draws, 5)
    target = torch.full((draws,), 3)
    sampled = sampled_softmax_loss(
        rows, target, num_samples, reduction="none", generator=generator()
    )
    noise = torch.rand(draws, 5, generator=generator(6))
    kept = class_dropout_mask(target, 5, 0.4, noise=noise).sum(1) == num_samples + 1
    dropped = class_dropout_loss(rows, target, 0.4, reduction="none", noise=noise)[kept]
    values, sampled_index = sampled.round(decimals=9).unique(return_inverse=True)
    assert len(values) == math.comb(4, num_samples)
    assert chisquare(sampled_index.bincount().numpy()).pvalue > 1e-6
    dropped_values, dropped_index = dropped.round(decimals=9).unique(return_inverse=True)
    torch.testing.assert_close(dropped_values, values)
    assert chisquare(dropped_index.bincount().numpy()).pvalue > 1e-6


def test_the_correction_subtracts_log_expected_counts_from_target_and_negatives():
    logits, target = random_logits(3, 5), torch.tensor([0, 2, 4])
    noise = torch.rand(3, 5, generator=generator())
    loss = sampled_softmax_loss(logits, target, 2, PROPOSAL, noise=noise, reduction="none")
    mask, log_count = sampled_class_mask(target, 5, 2, proposal=PROPOSAL, noise=noise)
    for row in range(3):
        corrected = (logits[row] - log_count[row]).exp()
        expected = -torch.log(corrected[target[row]] / corrected[mask[row]].sum())
        torch.testing.assert_close(loss[row], expected)


def test_noise_of_exactly_zero_and_one_still_gives_m_negatives():
    noise = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    mask, _ = sampled_class_mask(torch.tensor([0, 3]), 4, 2, noise=noise)
    assert (mask.sum(1) == 3).all()
    assert mask[0, 1]


def test_draws_repeat_from_a_generator_and_differ_without():
    logits, target = random_logits(64, 10), torch.arange(64) % 10
    for loss in (
        lambda seed: class_dropout_loss(logits, target, 0.5, generator=generator(seed)),
        lambda seed: sampled_softmax_loss(logits, target, 4, generator=generator(seed)),
    ):
        assert torch.equal(loss(1), loss(1))
        assert not torch.equal(loss(1), loss(2))


# --- the masked softmax ------------------------------------------------------------------------


def test_masked_cross_entropy_is_cross_entropy_on_the_slice():
    logits = random_logits(1, 6)
    mask = torch.tensor([[True, False, True, False, False, True]])
    loss = masked_cross_entropy(logits, torch.tensor([5]), mask)
    torch.testing.assert_close(loss, F.cross_entropy(logits[:, [0, 2, 5]], torch.tensor([2])))


def test_masked_cross_entropy_has_right_first_and_second_derivatives():
    logits = random_logits(3, 5).requires_grad_()
    target = torch.tensor([0, -100, 4])
    mask = class_dropout_mask(torch.tensor([0, 0, 4]), 5, 0.5, generator=generator())
    assert torch.autograd.gradcheck(lambda o: masked_cross_entropy(o, target, mask), logits)
    assert torch.autograd.gradgradcheck(lambda o: masked_cross_entropy(o, target, mask), logits)


def test_an_ignored_row_with_an_empty_mask_gives_no_nan():
    logits = random_logits(2, 3).requires_grad_()
    mask = torch.tensor([[True, True, False], [False, False, False]])
    loss = masked_cross_entropy(logits, torch.tensor([0, -100]), mask)
    loss.backward()
    torch.testing.assert_close(loss, F.cross_entropy(logits[:1, :2], torch.tensor([0])))
    assert logits.grad.isfinite().all()
    assert (logits.grad[1] == 0).all()


def test_a_batch_of_ignored_rows_has_mean_zero_and_no_gradient():
    logits = random_logits(2, 3).requires_grad_()
    target = torch.tensor([-100, -100])
    loss = class_dropout_loss(logits, target, 0.5) + sampled_softmax_loss(logits, target, 1)
    loss.backward()
    assert loss.item() == 0.0
    assert (logits.grad == 0).all()


def test_one_class_costs_nothing():
    logits = torch.tensor([[4.0]], requires_grad=True)
    target = torch.tensor([0])
    loss = class_dropout_loss(logits, target, 0.3) + sampled_softmax_loss(logits, target, 0)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.item() == 0.0


def test_huge_logits_give_finite_values_and_gradients():
    logits = torch.tensor([[1e4, -1e4, 0.0, -torch.inf]], requires_grad=True)
    for loss in (
        class_dropout_loss(logits, torch.tensor([1]), 1.0),
        sampled_softmax_loss(logits, torch.tensor([1]), 3, PROPOSAL[:4]),
    ):
        assert loss.item() == 2e4
        (grad,) = torch.autograd.grad(loss, logits)
        assert grad.tolist() == [[1.0, -1.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = random_logits(8, 200).to(dtype)
    target = torch.arange(8)
    noise = torch.rand(8, 200, generator=generator())
    loss = sampled_softmax_loss(logits, target, 50, noise=noise)
    truth = sampled_softmax_loss(logits.double(), target, 50, noise=noise)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(truth.item(), rel=1e-6)


def test_bad_arguments_are_refused():
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="retain_prob must lie"):
        class_dropout_loss(logits, target, 1.2)
    with pytest.raises(ValueError, match=r"num_samples must be a whole number in \[0, 2\]; got 3"):
        sampled_softmax_loss(logits, target, 3)
    with pytest.raises(ValueError, match="proposal must have shape"):
        sampled_softmax_loss(logits, target, 1, torch.ones(2))
    with pytest.raises(ValueError, match="proposal must hold finite numbers above 0"):
        sampled_softmax_loss(logits, target, 1, torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(TypeError, match="no soft target can weigh"):
        class_dropout_loss(logits, torch.full((2, 3), 1 / 3), 0.5)
    with pytest.raises(ValueError, match="noise must have the logits' shape"):
        class_dropout_loss(logits, target, 0.5, noise=torch.zeros(3))
    with pytest.raises(ValueError, match=r"noise must have shape \(2, 3\)"):
        class_dropout_mask(target, 3, 0.5, noise=torch.zeros(3))
    with pytest.raises(ValueError, match=r"target must have shape \(N,\)"):
        class_dropout_mask(target[:, None], 3, 0.5)
    with pytest.raises(ValueError, match="mask must be bool"):
        masked_cross_entropy(logits, target, torch.ones(2, 3))
    mask = torch.tensor([[True, True, True], [True, False, True]])
    with pytest.raises(ValueError, match="row 1 drops its target 1"):
        masked_cross_entropy(logits, target, mask)


@pytest.mark.parametrize("num_samples", [1, 3, 18, 33, 35])
@pytest.mark.parametrize("spread", [0, 6, 20, 36])
def test_where_it_may_not_look_the_expected_counts_still_sum_to_the_samples(
    num_samples, spread, monkeypatch
):
    # As on an accelerator, where a look at the numbers would wait for the device.
    monkeypatch.setattr(class_masks, "can_look", lambda *tensors, wait=False: False)
    proposal = torch.logspace(0, spread, 37, dtype=torch.float64).float()
    target = torch.arange(37)
    _, log_count = sampled_class_mask(target, 37, num_samples, proposal=proposal)
    others = log_count.double().exp().fill_diagonal_(0.0).sum(-1)
    torch.testing.assert_close(
        others, torch.full((37,), float(num_samples)).double(), rtol=1e-5, atol=0
    )
