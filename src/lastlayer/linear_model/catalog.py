"""The estimators by name."""

from __future__ import annotations

from lastlayer.linear_model.auto import SoftmaxRegression
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.estimators import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
)
from lastlayer.linear_model.sgd import SGDSoftmax
from lastlayer.registry import Registry

SOLVERS: Registry[type[LinearSoftmax]] = Registry(kind="solver", group="lastlayer.linear_model")
SOLVERS.add("lbfgs", LBFGSSoftmax, description="limited-memory BFGS on whitened features")
SOLVERS.add("newton-krylov", NewtonKrylovSoftmax, description="Newton with conjugate gradients")
SOLVERS.add("admm", ADMMSoftmax, description="ADMM-Softmax: least squares and row problems in turn")
SOLVERS.add("sgd", SGDSoftmax, description="stochastic gradient descent with momentum")
SOLVERS.add("auto", SoftmaxRegression, description="one of these, by the problem's size")
