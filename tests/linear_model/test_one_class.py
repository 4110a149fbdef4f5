"""SoftmaxRegression is every solver's class; what the classes share is the same in all of them."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from lastlayer.linear_model import (
    SOLVERS,
    ADMMSoftmax,
    LBFGSSoftmax,
    LinearSoftmax,
    NewtonKrylovSoftmax,
    SGDSoftmax,
    SoftmaxRegression,
    load_linear,
    save_linear,
)

#: Every argument with its default, in version 0.1: those of all classes, then each class's own.
SHARED = {
    "C": 1.0,
    "penalty_operator": None,
    "fit_intercept": True,
    "class_weight": None,
    "tol": 1e-3,
    "max_iter": 1000,
    "warm_start": False,
    "device": None,
    "callback": None,
}
OWN = {
    LBFGSSoftmax: {"memory": 10, "preconditioner": "auto", "mixed_precision": True},
    NewtonKrylovSoftmax: {
        "max_iter": 100,
        "max_products": 200,
        "preconditioner": "auto",
        "mixed_precision": True,
    },
    ADMMSoftmax: {"rho": "auto", "over_relaxation": 1.6, "prox_steps": 2, "polish": True},
    SGDSoftmax: {
        "tol": 1e-2,
        "max_iter": 100,
        "batch_size": 256,
        "learning_rate": "auto",
        "momentum": 0.9,
        "random_state": None,
    },
    SoftmaxRegression: {"solver": "auto", "solver_options": None, "mixed_precision": True},
}
every_class = pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)

#: By solver: options that are not the defaults, and change what comes out.
OPTIONS = {
    "lbfgs": {"memory": 1, "preconditioner": "none"},
    "newton-krylov": {"max_products": 1, "preconditioner": "diagonal"},
    "admm": {"rho": 0.3, "over_relaxation": 1.1, "prox_steps": 1, "polish": False},
    "sgd": {"batch_size": 7, "momentum": 0.5, "random_state": 3},
}


@every_class
def test_arguments_and_defaults_are_those_of_version_0_1(kind):
    assert kind().get_params() == SHARED | OWN[kind]
    parameters = inspect.signature(kind).parameters.values()
    assert {p.name: p.default for p in parameters} == SHARED | OWN[kind]
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == ["C"]


@every_class
def test_help_tells_of_every_argument_and_attribute_once(kind, noisy):
    shown = pydoc.render_doc(kind, renderer=pydoc.plaintext).split("Method resolution order")[0]
    heading = next(line for line in shown.splitlines() if line.startswith(f" |  {kind.__name__}("))
    fitted = noisy().fit(kind, tol=0.9)
    found = {name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")}
    undocumented = {"n_features_in_", "rows_seen_"}  # scikit-learn's, and of a stream
    for name in (SHARED | OWN[kind]).keys() | (found - undocumented):
        assert len(re.findall(rf"^[ |]+ {name}: ", shown, re.MULTILINE)) == 1, name
    for name in SHARED | OWN[kind]:
        assert f"{name}: " in heading
    assert "Args:" in shown
    assert shown.index("Args:") < shown.index("Attributes:") < shown.index("Example:")


@every_class
def test_an_argument_that_there_is_not_is_refused_by_name(kind):
    with pytest.raises(TypeError, match="max_iters"):
        kind(max_iters=3)


def test_a_class_of_ones_own_gets_the_shared_arguments_without_a_word():
    class Mine(LBFGSSoftmax, max_iter=7):
        """A class of one's own.

        Args:
            tol: as one likes it.
        """

    assert Mine().get_params() == SHARED | OWN[LBFGSSoftmax] | {"max_iter": 7}
    assert LBFGSSoftmax().max_iter == 1000


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", OPTIONS)
def test_every_solver_with_its_options_is_its_own_class_to_the_last_bit(noisy, solver):
    given, limits = noisy(weighted=True, C=3.0), {"tol": 1e-12, "max_iter": 4}
    own = given.fit(SOLVERS.get(solver), **limits, **OPTIONS[solver])
    one = given.fit(SoftmaxRegression, **limits, solver=solver, solver_options=OPTIONS[solver])
    np.testing.assert_array_equal(one.coef_, own.coef_)
    np.testing.assert_array_equal(one.history_["objective"], own.history_["objective"])
    assert one.solver_ == solver
    plain = given.fit(SoftmaxRegression, **limits, solver=solver, solver_options=None)
    assert not np.array_equal(plain.coef_, own.coef_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lbfgs", "solver_options": {"rho": 1.0}}, "among memory, preconditioner; got"),
        ({"solver_options": {"memory": 5}}, "of solver 'auto' must be among preconditioner; got"),
        ({"solver": "admm", "solver_options": {"C": 5}}, "got 'C'"),
        ({"solver": "lbfgs", "solver_options": {"mixed_precision": False}}, "mixed_precision"),
        ({"solver": "admm", "solver_options": {"rho": -1}}, "rho must be a finite number above 0"),
        ({"solver_options": {"preconditioner": "lu"}}, "preconditioner must be one of 'auto'"),
        ({"solver_options": ["memory"]}, "solver_options must be None or a dictionary"),
        ({"solver": "lbgfs"}, "solver must be one of 'auto', "),
    ],
)
def test_options_that_do_not_fit_the_solver_are_refused(noisy, options, message):
    with pytest.raises(ValueError, match=message):
        noisy().fit(SoftmaxRegression, **options)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_auto_hands_on_what_both_its_solvers_take(noisy):
    given = noisy()
    limits = {"tol": 0, "max_iter": 2}
    own = given.fit(NewtonKrylovSoftmax, preconditioner="diagonal", **limits)
    one = given.fit(SoftmaxRegression, solver_options={"preconditioner": "diagonal"}, **limits)
    np.testing.assert_array_equal(one.coef_, own.coef_)


def test_a_warning_gives_the_advice_of_the_solver(noisy):
    options = {"learning_rate": 1e3, "random_state": 0}
    with pytest.warns(UserWarning, match="SoftmaxRegression stopped.*lower learning_rate=1000"):
        noisy().fit(SoftmaxRegression, solver="sgd", solver_options=options, max_iter=1)


def test_options_of_the_solver_survive_clones_searches_pickles_and_files(noisy, tmp_path):
    given = noisy()
    model = SoftmaxRegression(solver="lbfgs", solver_options={"memory": np.int64(2)})
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    copy.set_params(solver_options={"memory": 9}, C=2.0)
    assert (copy.solver_options, model.solver_options["memory"]) == ({"memory": 9}, 2)
    grid = {"solver_options": [{"memory": 1}, {"memory": 20}]}
    search = GridSearchCV(model, grid, cv=2).fit(given.X, given.y)
    assert search.best_params_["solver_options"] in grid["solver_options"]
    model.fit(given.X, given.y)
    for other in (pickle.loads(pickle.dumps(model)), load_linear(save_linear(model, tmp_path))):
        assert other.solver_options == {"memory": 2}
        np.testing.assert_array_equal(other.predict_proba(given.X), model.predict_proba(given.X))
        other.fit(given.X, given.y)
        np.testing.assert_array_equal(other.coef_, model.coef_)


def test_every_solver_is_an_estimator_of_the_one_family():
    assert all(issubclass(SOLVERS.get(name), LinearSoftmax) for name in SOLVERS.names())
