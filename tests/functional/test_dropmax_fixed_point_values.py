"""The named fixed points are the roots of the objective's gradients."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq, root
from scipy.special import expit, logit

from lastlayer.functional import dropmax as dm


def test_target_fixed_point_solves_its_equation() -> None:
    a = brentq(lambda a: a * expit(a) - 1, 0, 5, xtol=1e-15)
    np.testing.assert_allclose(dm.TARGET_FIXED_POINT, expit(a), rtol=1e-12)


def test_other_fixed_points_solve_theirs() -> None:
    def gradients(logits: np.ndarray) -> list[float]:
        a, r = logits
        rho, q = expit(a), expit(a + r)
        return [rho - q + rho * (1 - rho) * a, expit(r) + q * (1 - q) * r]

    expected = [logit(dm.NON_TARGET_FIXED_POINT), logit(dm.POSTERIOR_FIXED_POINT)]
    found = root(gradients, [-1.0, -3.0], tol=1e-12)
    assert found.success
    np.testing.assert_allclose([found.x[0], found.x.sum()], expected, rtol=1e-9)


def test_fixed_points_are_those_printed_on_the_poster() -> None:
    assert round(dm.TARGET_FIXED_POINT, 2) == 0.78
    assert round(dm.NON_TARGET_FIXED_POINT, 4) == 0.2253
    assert round(dm.POSTERIOR_FIXED_POINT, 4) == 0.0097
