"""Brackets over random draws, and MINE's moving average."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lastlayer.functional import information as fi

PRIOR = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def draws(
    num_samples: int, rows: int = 40, noise: float = 0.7
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    clean = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    added = torch.randn(num_samples, rows, 4, generator=generator, dtype=torch.float64)
    return clean + noise * added, torch.arange(rows) % 4


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_lower_end_is_never_above_the_upper_end(average):
    bracket = fi.information_bracket(*draws(16), PRIOR, average=average)
    assert bool((bracket.lower <= bracket.upper).all())
    assert float((bracket.upper - bracket.lower).max()) > 0.05


def test_ends_are_their_definitions():
    logits, target = draws(5)
    q = np.exp(logits.log_softmax(-1).numpy())[:, np.arange(40), target.numpy()]
    prior = PRIOR.numpy()[target.numpy()]
    bracket = fi.information_bracket(logits, target, PRIOR)
    np.testing.assert_allclose(bracket.lower, np.log(q).mean(0) - np.log(prior), atol=1e-12)
    np.testing.assert_allclose(bracket.upper, np.log(q.mean(0)) - np.log(prior), atol=1e-12)
    mean = fi.information_bracket(logits, target, PRIOR, average="logits").upper
    expected = fi.pointwise_information(logits.mean(0), PRIOR)[torch.arange(40), target]
    torch.testing.assert_close(mean, expected)


def test_one_draw_has_no_width():
    bracket = fi.information_bracket(*draws(1), PRIOR)
    torch.testing.assert_close(bracket.lower, bracket.upper)


def test_upper_end_rises_with_the_number_of_draws():
    logits, target = draws(64, rows=200)
    means = []
    for k in (1, 2, 8, 64):
        groups = logits.reshape(64 // k, k, 200, 4)
        ends = [fi.information_bracket(group, target, PRIOR).upper.mean() for group in groups]
        means.append(float(torch.stack(ends).mean()))
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.05


def exact_stochastic_channel() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A joint P(x, y), a channel P(z | x) and the joint P(z, y)."""
    rng = np.random.default_rng(4)
    joint = rng.dirichlet(np.full(6, 0.6)).reshape(3, 2)
    channel = rng.dirichlet(np.full(4, 0.8), size=3)
    return joint, channel, channel.T @ joint


def test_average_over_examples_bounds_what_one_draw_carries_and_what_the_input_carries():
    joint, channel, latent = exact_stochastic_channel()
    prior = torch.from_numpy(joint.sum(0))
    carried = float(fi.mutual_information(torch.from_numpy(latent)))
    available = float(fi.mutual_information(torch.from_numpy(joint)))
    best = np.log(latent / latent.sum(1, keepdims=True))  # the optimal read-out of z
    single = ensemble = 0.0
    for x in range(3):
        for y in range(2):
            single += joint[x, y] * (channel[x] @ best[:, y] - math.log(prior[y]))
            mixed = math.log(channel[x] @ np.exp(best[:, y]))
            ensemble += joint[x, y] * (mixed - math.log(prior[y]))
    assert single == pytest.approx(carried, abs=1e-12)
    assert single < ensemble <= available
    assert ensemble > carried  # the ensemble does not bound the information of one draw


def test_a_dead_draw_makes_the_lower_end_minus_infinity_and_spares_the_upper():
    log_prob = torch.tensor([[[0.0, -torch.inf]], [[-torch.inf, 0.0]]])
    bracket = fi.information_bracket(log_prob, torch.tensor([0]), torch.tensor([0.5, 0.5]))
    assert float(bracket.lower) == -math.inf
    assert float(bracket.upper) == pytest.approx(0.0, abs=1e-6)


def test_bad_draws_are_refused():
    with pytest.raises(ValueError, match=r"shape \(S, N, K\)"):
        fi.information_bracket(torch.zeros(2, 4), torch.tensor([0]), PRIOR)
    with pytest.raises(ValueError, match=r"target must have shape \(3,\)"):
        fi.information_bracket(torch.zeros(2, 3, 4), torch.tensor([0]), PRIOR)
    with pytest.raises(ValueError, match="average must be one of"):
        fi.information_bracket(torch.zeros(1, 1, 4), torch.tensor([0]), PRIOR, average="median")
    with pytest.raises(ValueError, match="of prior 0"):
        fi.information_bracket(torch.zeros(1, 1, 2), torch.tensor([0]), torch.tensor([0.0, 1.0]))


# --- MINE --------------------------------------------------------------------------------------


def test_mine_keeps_the_moving_average_of_the_mean_exponential():
    generator = torch.Generator().manual_seed(0)
    average, running = None, None
    for _ in range(5):
        marginal = torch.randn(8, generator=generator, dtype=torch.float64)
        mean = float(marginal.exp().mean())
        running = mean if running is None else 0.9 * running + 0.1 * mean
        average = fi.mine_objective(marginal, marginal, average, rate=0.1).log_average
        assert float(average) == pytest.approx(math.log(running), abs=1e-12)


def test_mine_divides_the_gradient_by_the_moving_average():
    joint = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    marginal = torch.randn(4, dtype=torch.float64).requires_grad_()
    before = torch.tensor(0.4, dtype=torch.float64)
    step = fi.mine_objective(joint, marginal, before, rate=0.2)
    step.objective.backward()
    e = marginal.detach().exp()
    average = 0.8 * math.exp(0.4) + 0.2 * e.mean()
    torch.testing.assert_close(marginal.grad, -e / 4 / average)
    torch.testing.assert_close(joint.grad, torch.full((4,), 0.25, dtype=torch.float64))
    assert not step.log_average.requires_grad


def test_mine_without_memory_has_the_gradient_of_the_bound():
    scores = torch.randn(6, dtype=torch.float64).requires_grad_()
    fi.mine_objective(torch.zeros(6), scores, torch.tensor(9.0), rate=1.0).objective.backward()
    torch.testing.assert_close(scores.grad, -torch.softmax(scores.detach(), 0))


def test_mine_stays_finite_at_huge_scores():
    step = fi.mine_objective(torch.full((2,), 2000.0), torch.full((2,), 2000.0))
    assert float(step.objective) == 1999.0


def test_mine_refuses_bad_arguments():
    with pytest.raises(ValueError, match="rate must lie in"):
        fi.mine_objective(torch.zeros(2), torch.zeros(2), rate=0.0)
    with pytest.raises(ValueError, match="joint must have shape"):
        fi.mine_objective(torch.zeros(2, 1), torch.zeros(2))
