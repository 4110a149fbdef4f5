"""Surviving rivals against the enumeration of all masks."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from lastlayer.functional import dropmax as dm


def test_expected_rivals_and_chance_of_none_are_those_of_all_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    prob = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    target = torch.tensor([4, 0, 2])
    rivals = dm.surviving_rivals(prob, target)
    for row, (g, t) in enumerate(zip(prob.numpy(), target.tolist(), strict=True)):
        expected = none = 0.0
        others = np.delete(g, t)
        for mask in itertools.product((0, 1), repeat=4):
            chance = np.prod(np.where(mask, others, 1 - others))
            expected += chance * sum(mask)
            none += chance * (sum(mask) == 0)
        np.testing.assert_allclose(rivals.expected[row], expected, rtol=1e-12)
        np.testing.assert_allclose(rivals.none[row], none, rtol=1e-12)


def test_certain_rivals_leave_no_chance_of_none() -> None:
    rivals = dm.surviving_rivals(torch.ones(1, 4), torch.tensor([1]))
    assert rivals.expected.tolist() == [3.0]
    assert rivals.none.tolist() == [0.0]
