"""The estimators by name."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.estimators import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    SGDSoftmax,
)
from lastlayer.registry import Registry

_AUTO = "lastlayer.linear_model.auto"

SOLVERS: Registry[type[LinearSoftmax]] = Registry(kind="solver", group="lastlayer.linear_model")
SOLVERS.add("lbfgs", LBFGSSoftmax, description="limited-memory BFGS on whitened features")
SOLVERS.add("newton-krylov", NewtonKrylovSoftmax, description="Newton with conjugate gradients")
SOLVERS.add("admm", ADMMSoftmax, description="ADMM-Softmax: least squares and row problems in turn")
SOLVERS.add("sgd", SGDSoftmax, description="stochastic gradient descent with momentum")
if find_spec(_AUTO) is not None:
    SOLVERS.add(
        "auto",
        import_module(_AUTO).SoftmaxRegression,
        description="one of these, by the problem's size",
    )
