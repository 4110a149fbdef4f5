"""Convex last layers: softmax classifiers on features, as scikit-learn estimators."""

from lastlayer._deprecated import renamed
from lastlayer.linear_model import rows
from lastlayer.linear_model.base import LinearSoftmax, RowMeasures
from lastlayer.linear_model.estimators import (
    SOLVERS,
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    SoftmaxRegression,
)
from lastlayer.linear_model.path import PathPoint, RegularizationPath, regularization_path
from lastlayer.linear_model.penalties import discrete_laplacian
from lastlayer.linear_model.random_features import RandomFeatures
from lastlayer.linear_model.sgd import SGDSoftmax
from lastlayer.linear_model.solvers.progress import Record
from lastlayer.linear_model.storage import load_linear, save_linear

__all__ = [
    "SOLVERS",
    "ADMMSoftmax",
    "LBFGSSoftmax",
    "LinearSoftmax",
    "NewtonKrylovSoftmax",
    "PathPoint",
    "RandomFeatures",
    "Record",
    "RegularizationPath",
    "RowMeasures",
    "SGDSoftmax",
    "SoftmaxRegression",
    "discrete_laplacian",
    "load_linear",
    "regularization_path",
    "rows",
    "save_linear",
]

_ROWS = (
    "DistributedRows",
    "fit_distributed",
    "rows_from_dask",
    "rows_from_files",
    "rows_in_memory",
    "shared_classes",
)
__getattr__ = renamed(
    __name__,
    {name: f"lastlayer.linear_model.rows.{name}" for name in _ROWS}
    | {"SoftmaxProblem": "lastlayer.linear_model.problem.SoftmaxProblem"},
)
