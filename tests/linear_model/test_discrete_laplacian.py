"""The Laplacian of a grid: against a loop over cells and their neighbors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lastlayer.linear_model import discrete_laplacian

SHAPES = [(1,), (5,), (1, 4), (3, 2), (4, 4), (2, 3, 4), (1, 1, 1), (3, 1, 2)]


def brute_force(shape, identity=0.0):
    cells = list(itertools.product(*(range(side) for side in shape)))
    matrix = identity * np.eye(len(cells))
    for (i, a), (j, b) in itertools.product(enumerate(cells), repeat=2):
        if sum(abs(x - y) for x, y in zip(a, b, strict=True)) == 1:
            matrix[i, i] += 1
            matrix[i, j] -= 1
    return matrix


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("identity", [0.0, 0.25])
def test_every_cell_is_compared_with_its_neighbors(shape, identity):
    found = discrete_laplacian(shape, identity=identity)
    assert found.dtype == torch.float64
    np.testing.assert_array_equal(found.numpy(), brute_force(shape, identity))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_constant_weights_cost_nothing_and_no_others_do(shape):
    values = torch.linalg.eigvalsh(discrete_laplacian(shape))
    assert abs(float(values[0])) < 1e-12
    assert (values[1:] > 1e-3).all()
    assert float(discrete_laplacian(shape).sum(1).abs().max()) == 0


def test_a_border_has_no_neighbor_on_the_other_side():
    found = discrete_laplacian((3, 3))
    assert found[0, 2] == found[0, 6] == found[2, 3] == 0  # ends of rows and columns, a wrapped row
    assert found.diagonal().tolist() == [2, 3, 2, 3, 4, 3, 2, 3, 2]


@pytest.mark.parametrize("shape", [(0,), (3, -1), (2.0, 2), (True, 2)])
def test_sides_must_be_counts(shape):
    with pytest.raises(ValueError, match="shape must be a whole number of at least 1"):
        discrete_laplacian(shape)


@pytest.mark.parametrize("identity", [-0.1, float("nan"), float("inf")])
def test_the_identity_must_be_at_least_0(identity):
    with pytest.raises(ValueError, match="identity must be a finite number of at least 0"):
        discrete_laplacian((2,), identity=identity)
