"""How far a linear fit is: the digits of the gap that are won, each fit of a path an equal part."""

import pytest

from lastlayer.experiments.linear_progress import FitProgress
from lastlayer.linear_model import SOLVERS, PathPoint, Record


def told_of(gaps_by_fit, tol=1e-6):
    """What is told of fits of a path whose iterations have these gaps."""
    told = []
    estimator = SOLVERS.get("lbfgs")(tol=tol, max_iter=100)
    progress = FitProgress("lbfgs", estimator, len(gaps_by_fit), lambda *args: told.append(args))
    for gaps in gaps_by_fit:
        for iteration, gap in enumerate(gaps):
            progress.record(Record(iteration, objective=1.0, bound=1.0 - gap, gradient=0.0))
        progress.point(PathPoint(1.0, estimator, 0.5, 0.01, 0.9, 1.0))
    assert {name for name, _, _ in told} == {"lbfgs"}
    return [share for _, share, _ in told], [words for _, _, words in told]


def test_every_fit_of_a_path_goes_from_the_begin_of_its_part_to_its_end():
    # Half of the digits; then a wider gap, which takes nothing back; then more than was asked for.
    gaps = [(1.0, 1e-3, 1e-1, 1e-9), (100.0, 1e-2, 1.0, 1e-9)]
    shares, words = told_of(gaps)
    assert shares == pytest.approx([0, 0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75, 1, 1], abs=1e-6)
    begins = [line.split(",")[0] for line in words]
    end = "C 1: held-out NLL 0.5000"
    assert begins == [*["fit 1 of 2"] * 4, end, *["fit 2 of 2"] * 4, end]


def test_without_a_bound_the_iterations_are_counted():
    shares, words = told_of([[float("inf")] * 4])
    assert shares == pytest.approx([0, 0.01, 0.02, 0.03, 1])
    assert words[2] == "iteration 2, objective 1"
