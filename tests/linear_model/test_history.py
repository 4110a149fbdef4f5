"""Records, callbacks, the meaning of tol, and warnings that say what to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    Record,
    SGDSoftmax,
)

SOLVERS = [LBFGSSoftmax, NewtonKrylovSoftmax, ADMMSoftmax]
solvers = pytest.mark.parametrize("solver", SOLVERS)
everyone = pytest.mark.parametrize("solver", [*SOLVERS, SGDSoftmax])
#: Options under which each ends without a warning.
SHORT = {solver: {"tol": 1e-8} for solver in SOLVERS}
SHORT[SGDSoftmax] = {"callback": lambda record: record.iteration == 20, "random_state": 0}


@pytest.mark.parametrize("solver", [LBFGSSoftmax, NewtonKrylovSoftmax])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_the_objective_never_rises_but_by_rounding(noisy, solver, C):
    given = noisy(C=C, weighted=True)
    values = np.array(given.fit(solver, tol=1e-10).history_["objective"])
    assert len(values) > 2
    rounding = 4 * np.finfo(float).eps * (values[:-1] + given.weight.sum())
    assert (np.diff(values) <= rounding).all()
    assert values[0] > values[-1]


@everyone
def test_the_bound_rises_and_never_exceeds_the_objective_or_the_minimum(noisy, solver):
    given = noisy(weighted=True)
    history = given.fit(solver, **SHORT[solver]).history_
    bound, objective = np.array(history["bound"]), np.array(history["objective"])
    assert (np.diff(bound) >= 0).all()
    assert (bound <= objective * (1 + 1e-14)).all()
    assert bound[-1] <= given.scikit_learn_minimum() * (1 + 1e-10)


@everyone
def test_the_history_is_what_the_callback_saw(noisy, solver):
    seen = []
    tol = 0.2 if solver is SGDSoftmax else 1e-6
    model = noisy().fit(solver, tol=tol, callback=seen.append)
    assert all(isinstance(record, Record) for record in seen)
    assert [record.iteration for record in seen] == list(range(len(seen)))
    assert len(seen) == model.n_iter_ + 1
    for name, column in model.history_.items():
        values = [getattr(record, name) for record in seen]
        np.testing.assert_array_equal(values, column)
    assert seen[-1].gap == model.gap_
    seconds = model.history_["seconds"]
    assert seconds == sorted(seconds)


@everyone
@pytest.mark.parametrize("last", [0, 3])
def test_a_callback_that_returns_true_stops_without_a_warning(noisy, solver, last):
    given = noisy()
    model = given.fit(solver, tol=0, callback=lambda record: record.iteration == last)
    assert len(model.history_["objective"]) == last + 1
    assert not model.converged_
    assert given.of(model) == pytest.approx(min(model.history_["objective"]), rel=1e-12)


@solvers
def test_other_answers_of_a_callback_stop_nothing(noisy, solver):
    assert noisy().fit(solver, callback=lambda record: "on").converged_


@solvers
def test_the_last_objective_is_that_of_the_weights(noisy, solver):
    given = noisy(weighted=True)
    model = given.fit(solver, tol=1e-8)
    assert given.of(model) == pytest.approx(model.history_["objective"][-1], rel=1e-12)


@solvers
@pytest.mark.parametrize("tol", [0.5, 1e-2, 1e-4, 1e-6, 1e-8])
def test_tol_is_the_true_relative_gap_at_most(noisy, solver, tol):
    given = noisy(weighted=True)
    model = given.fit(solver, tol=tol)
    assert model.converged_
    assert 0 <= model.gap_ <= tol
    least = given.scikit_learn_minimum()
    assert (given.of(model) - least) / least <= model.gap_ + 1e-10


@solvers
def test_a_smaller_tol_takes_more_iterations(noisy, solver):
    taken = [noisy().fit(solver, tol=tol).n_iter_ for tol in (0.1, 1e-3, 1e-9)]
    assert taken[0] < taken[1] < taken[2]


@solvers
def test_without_a_bound_tol_is_the_fall_of_the_gradient(noisy, solver):
    given = noisy(C=np.inf, count=100)
    model = given.fit(solver, tol=1e-3)
    gradient = [value for value in model.history_["gradient"] if not math.isnan(value)]
    assert model.gap_ == np.inf
    assert gradient[-1] <= 1e-3 * gradient[0] < gradient[-2]


def test_gradients_are_recorded_as_they_are(noisy):
    given = noisy()
    history = given.fit(NewtonKrylovSoftmax).history_
    problem = given.problem()
    first = problem.evaluate(problem.start())
    assert history["gradient"][0] == pytest.approx(float(first.gradient.abs().max()), rel=1e-12)
    assert history["objective"][0] == pytest.approx(first.value, rel=1e-14)


def test_residuals_of_admm_fall_and_the_others_have_none(noisy):
    given = noisy()
    history = given.fit(ADMMSoftmax, tol=1e-10, polish=False).history_
    for name in ("primal_residual", "dual_residual"):
        values = np.array(history[name])
        assert math.isnan(values[0])
        assert values[-1] < 1e-4 < values[1]
    other = given.fit(LBFGSSoftmax).history_
    assert np.isnan(other["primal_residual"]).all()
    assert np.isnan(other["dual_residual"]).all()


# -- warnings -------------------------------------------------------------------------------------


@everyone
def test_too_few_iterations_warn_of_gap_tol_and_what_to_do(noisy, solver):
    text = (
        rf"^{solver.__name__} stopped at a certified relative gap of \d\.\de[-+]\d+, tol=1e-09: "
        r"max_iter=2 is used up; raise max_iter or tol$"
    )
    with pytest.warns(ConvergenceWarning, match=text):
        model = noisy().fit(solver, tol=1e-9, max_iter=2)
    assert not model.converged_
    assert model.n_iter_ == 2
    assert model.gap_ > 1e-9


@solvers
def test_without_a_bound_the_warning_tells_the_gradient_and_weak_penalties(noisy, solver):
    text = (
        r"stopped at a largest gradient entry of .*, tol=1e-06: max_iter=2 is used up; raise "
        r"max_iter or tol; classes that can be separated have no optimum without a penalty: lower C"
    )
    with pytest.warns(ConvergenceWarning, match=text):
        noisy(C=np.inf, count=100).fit(
            solver, tol=1e-6, max_iter=2, **({"polish": False} if solver is ADMMSoftmax else {})
        )


@pytest.mark.parametrize("max_iter", range(1, 16))
def test_admm_with_polish_takes_no_more_than_max_iter(noisy, max_iter):
    given = noisy(C=100.0)
    with pytest.warns(ConvergenceWarning, match=f"max_iter={max_iter} is used up"):
        model = given.fit(ADMMSoftmax, tol=1e-13, max_iter=max_iter)
    assert model.n_iter_ == max_iter


@everyone
def test_a_warning_points_to_the_line_that_fits(noisy, solver):
    given = noisy()
    with pytest.warns(ConvergenceWarning) as caught:
        solver(tol=0, max_iter=1).fit(given.X, given.y)
    assert caught[0].filename == __file__
