"""The pictures of solvers and paths show the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest

from lastlayer.report import SolverCurve, convergence_figure, path_figure
from lastlayer.report.style import figure_bytes

FAST = SolverCurve("fast", [0.0, 0.1], [30.0, 20.0], [-np.inf, 10.0], [0.1], [0.9])
SLOW = SolverCurve("slow", [0.5, 1.0], [25.0, 21.0], [np.nan, 5.0], [0.5, 1.0], [0.5, 0.6])


def test_the_gap_is_to_the_best_bound_of_all_solvers():
    figure = convergence_figure([FAST, SLOW])
    left, right = figure.axes
    fast, slow = (line.get_ydata() for line in left.lines)
    np.testing.assert_allclose(fast, [2.0, 1.0])
    np.testing.assert_allclose(slow, [1.5, 1.1])
    assert left.get_xscale() == left.get_yscale() == right.get_xscale() == "log"
    np.testing.assert_allclose(right.lines[1].get_ydata(), [50, 60])
    assert left.lines[0].get_xdata()[0] > 0
    assert "best lower bound" in left.get_ylabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fast", "slow"]
    assert len(figure_bytes(figure, ".png")) > 5000


def test_without_bounds_the_least_objective_takes_their_place():
    curves = [SolverCurve(c.name, c.seconds, c.objective, [-np.inf, -np.inf]) for c in (FAST, SLOW)]
    (axes,) = convergence_figure(curves).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.5, np.nan])
    assert "least one found" in axes.get_ylabel()


def test_a_path_shows_nll_with_its_error_the_least_one_ringed_and_accuracy():
    path = {"C": [0.1, 1.0, 10.0], "nll": [0.5, 0.3, 0.4], "standard_error": [0.1] * 3}
    left, right = path_figure({"lbfgs": path | {"accuracy": [0.7, 0.9, 0.8]}}).axes
    assert left.get_xscale() == right.get_xscale() == "log"
    ring = left.lines[-1]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([1.0], [0.3])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [70, 90, 80])


def test_nothing_to_draw_and_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="curves must not be empty"):
        convergence_figure([])
    with pytest.raises(ValueError, match="paths must not be empty"):
        path_figure({})
    with pytest.raises(ValueError, match="lists of 'x' must have one length"):
        convergence_figure([SolverCurve("x", [1.0], [1.0, 2.0], [0.0])])
