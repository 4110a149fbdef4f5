"""Bias correction: the optimum by other means, one pair for each later task, never worse."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from lastlayer.incremental import BiasCorrection
from lastlayer.incremental.bias_correction import MAX_SCALE, MIN_SCALE


def held_out(num_classes=6, rows=240, shift=3.0, scale=1.8, num_new=2, seed=0):
    """Noisy logits of a balanced split in which the newest classes came out too large."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(rows) % num_classes
    logits = torch.randn(rows, num_classes, generator=generator, dtype=torch.float64)
    logits += 2 * F.one_hot(target, num_classes)
    logits[:, -num_new:] = logits[:, -num_new:] * scale + shift
    return logits, target


def build(*sizes):
    correction = BiasCorrection()
    for size in sizes:
        correction.add_task(size)
    return correction


def test_the_pair_is_the_optimum_that_a_simplex_search_finds():
    logits, target = held_out()

    def loss(pair):
        moved = torch.cat((logits[:, :4], logits[:, 4:] * pair[0] + pair[1]), dim=1)
        return float(F.cross_entropy(moved, target))

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15})
    correction = build(4, 2)
    fit = correction.fit(logits, target)
    assert fit.before == pytest.approx(loss((1, 0)), rel=1e-12)
    assert fit.after == pytest.approx(best.fun, abs=1e-10)
    pair = [float(correction.scale[1]), float(correction.bias[1])]
    assert pair == pytest.approx(best.x.tolist(), abs=1e-5)
    assert fit.after == pytest.approx(float(F.cross_entropy(correction(logits), target)), rel=1e-12)


def test_a_known_distortion_of_calibrated_logits_is_undone():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(20000, 4, generator=generator, dtype=torch.float64) * 2
    target = torch.multinomial(clean.softmax(1), 1, generator=generator).squeeze(1)
    distorted = torch.cat((clean[:, :2], (clean[:, 2:] + 1.5) / 0.4), dim=1)
    correction = build(2, 2)
    correction.fit(distorted, target)
    assert float(correction.scale[1]) == pytest.approx(0.4, abs=0.02)
    assert float(correction.bias[1]) == pytest.approx(-1.5, abs=0.1)


def test_the_first_task_is_the_same_bits_and_an_unfitted_pair_changes_nothing():
    logits = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))
    correction = build(4, 2)
    assert correction(logits).equal(logits)
    correction.fit(*held_out())
    assert correction(logits)[..., :4].equal(logits[..., :4])
    assert not correction(logits)[..., 4:].equal(logits[..., 4:])


def test_every_task_has_a_pair_of_its_own_and_earlier_ones_stay():
    correction = build(2, 2)
    correction.fit(*held_out(num_classes=4, seed=1))
    first = correction.scale[1].clone(), correction.bias[1].clone()
    correction.add_task(2)
    logits, target = held_out(shift=-2.0, scale=0.5, seed=2)
    logits[:, 2:4] = logits[:, 2:4] * 1.8 + 3
    fit = correction.fit(logits, target)
    assert correction.scale[1].equal(first[0])
    assert correction.bias[1].equal(first[1])
    assert correction.scale[2] != first[0]
    by_hand = logits.clone()
    by_hand[:, 2:4] = logits[:, 2:4] * first[0].double() + first[1].double()
    by_hand[:, 4:] = logits[:, 4:] * correction.scale[2].double() + correction.bias[2].double()
    torch.testing.assert_close(correction(logits), by_hand)
    # One pair for all later tasks, a mistake of a peer library, cannot undo two distortions.
    shared = build(2, 4)
    assert fit.after < shared.fit(logits, target).after - 0.05


def test_a_pair_can_be_fitted_again():
    correction = build(4, 2)
    once = correction.fit(*held_out())
    pair = correction.scale.clone(), correction.bias.clone()
    assert correction.fit(*held_out()) == once
    assert correction.scale.equal(pair[0])
    assert correction.bias.equal(pair[1])


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_is_never_worse_than_none(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(12, 3, generator=generator) * 10.0 ** (seed - 2)
    target = torch.arange(12) % 3
    correction = build(2, 1)
    fit = correction.fit(logits, target)
    assert fit.after <= fit.before
    assert MIN_SCALE - 1e-6 <= float(correction.scale[1]) <= MAX_SCALE


def test_where_nothing_is_to_gain_the_pair_stays_one_and_zero():
    correction = build(1, 1)
    # Equal logits, as many of both: the optimum is the identity.
    fit = correction.fit(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    assert fit.before == fit.after
    assert correction.scale.tolist() == [1.0, 1.0]
    assert correction.bias.tolist() == [0.0, 0.0]


def test_a_split_without_mistakes_leaves_the_pair_within_its_bounds():
    correction = build(1, 1)
    logits = torch.tensor([[0.0, -0.1], [0.0, 0.1]])
    fit = correction.fit(logits, torch.tensor([0, 1]))
    assert fit.after < fit.before
    assert float(correction.scale[1]) == pytest.approx(MAX_SCALE)
    assert correction.fit(logits * 1e3, torch.tensor([0, 1])).after < 1e-9
    assert correction.bias.isfinite().all()


def test_a_state_of_any_number_of_tasks_is_loaded():
    correction = build(4, 2)
    correction.fit(*held_out())
    correction.add_task(3)
    file = io.BytesIO()
    torch.save(correction.state_dict(), file)
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    for other in (BiasCorrection(), build(1), build(1, 1, 1, 1, 1)):
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert other.num_classes == 9
        assert other(logits).equal(correction(logits))
    nested = torch.nn.Sequential(build(1))
    nested.load_state_dict(torch.nn.Sequential(correction).state_dict())
    assert nested(logits).equal(correction(logits))
    assert list(correction.parameters()) == []


def test_half_precision_is_computed_in_float32():
    correction = build(4, 2)
    logits, target = held_out()
    correction.fit(logits.bfloat16(), target)
    out = correction(logits.bfloat16())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, correction(logits.bfloat16().double()).float())


def test_bad_input_is_named():
    logits, target = held_out()
    with pytest.raises(ValueError, match="two tasks or more"):
        build(6).fit(logits, target)
    correction = build(4, 2)
    for arguments, error, named in [
        ((logits[:, :5], target), ValueError, r"\(\*, 6\)"),
        ((logits, target[:3]), ValueError, "target"),
        ((logits, target + 1), ValueError, "target"),
        ((logits, target.int()), TypeError, "int64"),
        ((logits * torch.inf, target), ValueError, "finite"),
        ((logits, target.clamp_max(3)), ValueError, "got 0 of 240 of the newest"),
        ((logits, target.clamp_min(4)), ValueError, "got 240 of 240 of the newest"),
    ]:
        with pytest.raises(error, match=named):
            correction.fit(*arguments)
    with pytest.raises(ValueError, match=r"\(\*, 6\)"):
        correction(logits[:, :5])
    with pytest.raises(TypeError, match="logits"):
        correction(target)
    with pytest.raises(ValueError, match="num_classes"):
        correction.add_task(0)
