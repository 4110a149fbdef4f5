"""Oracles of the tasks with known information, and label noise of a known amount."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from information_tasks import flip_labels, scale_mixture, symmetric_channel, two_gaussians
from scipy.stats import chisquare, multivariate_normal, norm

from lastlayer.data.gaussian_mixture import gaussian_mixture
from lastlayer.functional import information as fi


@pytest.mark.parametrize(
    "task",
    [
        gaussian_mixture(1),
        gaussian_mixture(3, balanced=False),
        two_gaussians(1.0, share=0.9),
        scale_mixture(),
    ],
)
@pytest.mark.parametrize("shift", [0.0, 40.0])
def test_oracle_logits_estimate_the_information_whatever_the_row_constant(task, shift):
    x, y = task.sample(20_000, seed=7)
    logits = task.log_likelihood(x) + shift * torch.sin(x[:, :1].double())
    pc = fi.barber_agakov_bound(logits, y, prior=task.prior)
    ce = fi.cross_entropy_information(logits + task.prior.log(), y, prior=task.prior)
    for found in (pc, ce):
        z = (float(found.value) - task.mutual_information) / float(found.standard_error)
        assert abs(z) < 5
    assert float(pc.standard_error) < 0.01


def test_oracle_likelihood_is_the_normal_density():
    task = gaussian_mixture(3)
    x, _ = task.sample(4, seed=0)
    expected = [
        [multivariate_normal(np.full(3, m), np.eye(3)).logpdf(row) for m in task.means.numpy()]
        for row in x.numpy()
    ]
    np.testing.assert_allclose(task.log_likelihood(x).numpy(), expected, rtol=1e-9)
    wide = scale_mixture(3.0).log_likelihood(torch.tensor([[1.5]]))
    np.testing.assert_allclose(wide.numpy(), [[norm.logpdf(1.5), norm.logpdf(1.5, 0, 3)]])


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_label_noise_lowers_the_estimate_to_the_closed_form(error):
    target = torch.arange(20_000) % 4
    noisy = flip_labels(target, 4, error, seed=1)
    channel = symmetric_channel(4, error)
    oracle = channel.log_likelihood()[target]
    found = fi.cross_entropy_information(oracle, noisy)
    z = (float(found.value) - channel.mutual_information) / float(found.standard_error)
    assert abs(z) < 5
    clean = fi.cross_entropy_information(100 * torch.eye(4)[target], target)
    assert float(clean.value) == pytest.approx(math.log(4), abs=1e-6)
    wrong = torch.bincount((noisy - target) % 4, minlength=4)
    assert chisquare(wrong, 20_000 * np.array([1 - error, *[error / 3] * 3])).pvalue > 1e-6


def test_saturated_task_is_told_apart_from_the_label_entropy_in_the_log_domain():
    task = gaussian_mixture(10)
    x, y = task.sample(20_000, seed=8)
    found = fi.cross_entropy_information(task.log_likelihood(x), y, prior=task.prior)
    assert float(found.value) <= math.log(5)
    z = (float(found.value) - task.mutual_information) / float(found.standard_error)
    assert abs(z) < 5
