"""Exact quantities of finite joints against NumPy, SciPy and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, entropy
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from lastlayer.functional import information as fi


def random_joint(seed: int) -> torch.Tensor:
    table = np.random.default_rng(seed).random((5, 4)) ** 3
    return torch.from_numpy(table / table.sum())


@pytest.mark.parametrize("seed", range(5))
def test_information_is_the_divergence_from_the_product_of_the_margins(seed):
    joint = random_joint(seed)
    table = joint.numpy()
    product = np.outer(table.sum(1), table.sum(0))
    expected = entropy(table.ravel(), product.ravel())
    assert float(fi.mutual_information(joint)) == pytest.approx(expected, abs=1e-13)
    conditional = entropy(table.ravel()) - entropy(table.sum(1))
    assert float(fi.conditional_entropy(joint)) == pytest.approx(conditional, abs=1e-13)
    label = float(fi.entropy(joint.sum(0)) - fi.conditional_entropy(joint))
    assert label == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_chi_square_information_is_pearsons_statistic_over_n(seed):
    counts = np.random.default_rng(seed).integers(1, 30, size=(4, 3))
    statistic = chi2_contingency(counts, correction=False).statistic
    joint = torch.from_numpy(counts / counts.sum())
    assert float(fi.chi_square_information(joint)) == pytest.approx(
        statistic / counts.sum(), abs=1e-13
    )


def test_empty_cells_rows_and_columns_count_as_nothing():
    full = torch.tensor([[0.5, 0.0], [0.2, 0.3]], dtype=torch.float64)
    padded = torch.zeros(3, 3, dtype=torch.float64)
    padded[0, 0], padded[2, 0], padded[2, 2] = 0.5, 0.2, 0.3
    for quantity in (fi.mutual_information, fi.chi_square_information, fi.conditional_entropy):
        assert float(quantity(padded)) == pytest.approx(float(quantity(full)), abs=1e-15)
    pmi = fi.joint_pointwise_information(padded)
    assert bool(pmi[1].isnan().all())
    assert bool(pmi[:, 1].isnan().all())
    assert float(pmi[0, 2]) == -math.inf


def test_quantities_of_a_table_are_differentiable_where_it_has_zeros():
    joint = torch.tensor([[0.5, 0.0, 0.0], [0.2, 0.3, 0.0]], dtype=torch.float64)
    joint.requires_grad_()
    fi.chi_square_information(joint).backward()
    assert bool(joint.grad.isfinite().all())


@pytest.mark.parametrize("eps", [0.3, 0.1, 0.03, 0.01])
def test_weak_dependence_halves_the_chi_square(eps):
    margins = random_joint(8)
    product = margins.sum(1, keepdim=True) * margins.sum(0, keepdim=True)
    joint = (1 - eps) * product + eps * random_joint(9)
    ratio = float(fi.mutual_information(joint) / (0.5 * fi.chi_square_information(joint)))
    assert abs(ratio - 1) < eps


def test_independent_and_certain_pairs_have_no_and_all_information():
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    independent = prior.unsqueeze(1) * prior
    assert float(fi.mutual_information(independent)) == pytest.approx(0.0, abs=1e-15)
    assert float(fi.chi_square_information(independent)) == pytest.approx(0.0, abs=1e-15)
    certain = torch.diag(prior)
    assert float(fi.mutual_information(certain)) == pytest.approx(float(fi.entropy(prior)))
    assert float(fi.chi_square_information(certain)) == pytest.approx(2.0)


def test_information_is_symmetric_and_falls_under_merging():
    joint = random_joint(3)
    whole = float(fi.mutual_information(joint))
    assert float(fi.mutual_information(joint.mT)) == pytest.approx(whole, abs=1e-14)
    merged = torch.stack((joint[0] + joint[1], joint[2], joint[3] + joint[4]))
    assert float(fi.mutual_information(merged)) < whole


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match=r"sum 1.*divide a table of counts"):
        fi.mutual_information(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"smallest entry -0\.5"):
        fi.mutual_information(torch.tensor([[1.5, -0.5]]))
    with pytest.raises(ValueError, match=r"shape \(X, Y\)"):
        fi.mutual_information(torch.ones(1))
    with pytest.raises(TypeError, match="floating-point"):
        fi.mutual_information(torch.ones(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="counts must be a table"):
        fi.plug_in_information(torch.tensor([[-1.0, 3.0]]))


@pytest.mark.parametrize("counts", [([2, 2], [2, 2]), ([5, 0, 2], [1, 3, 3]), ([1] * 6, [4, 2])])
def test_the_null_of_the_plug_in_information_is_its_mean_over_all_orders_of_the_labels(counts):
    x, y = (torch.arange(len(c)).repeat_interleave(torch.tensor(c)) for c in counts)
    size = [len(c) for c in counts]
    orders = torch.tensor(list(itertools.permutations(range(len(y)))))
    cells = torch.nn.functional.one_hot(x * size[1] + y[orders], size[0] * size[1]).sum(1)
    tables, number = torch.unique(cells, dim=0, return_counts=True)
    each = torch.stack([fi.plug_in_information(table.reshape(size)) for table in tables])
    found = fi.plug_in_information_null(*map(torch.tensor, counts))
    torch.testing.assert_close(found, each @ number.double() / len(orders), atol=1e-12, rtol=0)


def test_the_null_of_the_plug_in_information_is_scikit_learns_for_large_counts():
    x, y = torch.tensor([400, 90, 10, 0]), torch.tensor([100, 150, 250])
    labels = (np.repeat(np.arange(len(counts)), counts) for counts in (x, y))
    expected = expected_mutual_information(contingency_matrix(*labels, sparse=True), 500)
    found = fi.plug_in_information_null(x, y)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    large = fi.plug_in_information_null(torch.tensor([4000, 6000]), torch.tensor([2500, 7500]))
    assert float(large) == pytest.approx(1 / 20_000, rel=1e-3)
    with pytest.raises(ValueError, match=r"y_counts must be counts .* sums 500 and 3"):
        fi.plug_in_information_null(x, torch.tensor([1, 2]))
