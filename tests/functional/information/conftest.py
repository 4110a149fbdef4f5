"""Random finite joints and critics of them, for tests that enumerate instead of sampling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor


class FiniteCase(NamedTuple):
    """A finite joint as a sample whose frequencies are the joint exactly, and a critic of it.

    ``scores`` (N, K) and ``target`` (N,) hold one row for every example of the sample.
    """

    joint: Tensor
    prior: Tensor
    scores: Tensor
    target: Tensor
    inputs: Tensor
    table: Tensor

    @property
    def information(self) -> float:
        """The definition, cell by cell."""
        table = self.joint.numpy()
        px, py, total = table.sum(1), table.sum(0), 0.0
        for x, row in enumerate(table):
            for y, p in enumerate(row):
                if p > 0:
                    total += p * np.log(p / (px[x] * py[y]))
        return float(total)

    def expected_divergence(self, log_q: Tensor) -> float:
        """E_x KL(p(.|x) || q(.|x)) for (X, K) log-probabilities."""
        px = self.joint.sum(1, keepdim=True)
        conditional = self.joint / px
        return float((self.joint * (conditional.log() - log_q)).sum())


def make_case(seed: int, *, balanced: bool = False, inputs: int = 6, labels: int = 4) -> FiniteCase:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 20, size=(inputs, labels))
    if balanced:  # top up the last row, so that every label occurs equally often
        counts[-1] += counts.sum(0).max() - counts.sum(0)
    x, y = (np.repeat(index, counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1))
    joint = torch.from_numpy(counts / counts.sum())
    table = torch.from_numpy(1.5 * rng.standard_normal(counts.shape))
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    return FiniteCase(joint, joint.sum(0), table[x], y, x, table)


@pytest.fixture(params=[(seed, balanced) for seed in range(6) for balanced in (False, True)])
def case(request: pytest.FixtureRequest) -> FiniteCase:
    seed, balanced = request.param
    return make_case(seed, balanced=balanced)
