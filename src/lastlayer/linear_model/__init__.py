"""Convex last layers: softmax classifiers on features, as scikit-learn estimators."""

from lastlayer.linear_model.auto import SoftmaxRegression
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.catalog import SOLVERS
from lastlayer.linear_model.dask_rows import rows_from_dask
from lastlayer.linear_model.distributed import DistributedRows, fit_distributed, shared_classes
from lastlayer.linear_model.estimators import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
)
from lastlayer.linear_model.files import rows_from_files
from lastlayer.linear_model.path import PathPoint, RegularizationPath, regularization_path
from lastlayer.linear_model.penalties import discrete_laplacian
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.random_features import RandomFeatures
from lastlayer.linear_model.rows import rows_in_memory
from lastlayer.linear_model.sgd import SGDSoftmax
from lastlayer.linear_model.solvers.progress import Record
from lastlayer.linear_model.storage import load_linear, save_linear

__all__ = [
    "SOLVERS",
    "ADMMSoftmax",
    "DistributedRows",
    "LBFGSSoftmax",
    "LinearSoftmax",
    "NewtonKrylovSoftmax",
    "PathPoint",
    "RandomFeatures",
    "Record",
    "RegularizationPath",
    "SGDSoftmax",
    "SoftmaxProblem",
    "SoftmaxRegression",
    "discrete_laplacian",
    "fit_distributed",
    "load_linear",
    "regularization_path",
    "rows_from_dask",
    "rows_from_files",
    "rows_in_memory",
    "save_linear",
    "shared_classes",
]
