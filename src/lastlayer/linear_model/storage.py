"""A fitted linear model as one file, without pickles."""

from __future__ import annotations

import json
import zipfile
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.validation import check_is_fitted

from lastlayer._files import atomic_write
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.estimators import SOLVERS
from lastlayer.linear_model.random_features import RandomFeatures

FILE_NAME = "model.npz"

_NEEDED = ("coef", "intercept", "classes", "about")
#: What a fit found besides, numbers and a text.
_FITTED = ("converged_", "gap_", "solver_", "rows_seen_")
_RANDOM = ("random_components", "random_offset")


def save_linear(model: Any, path: str | Path) -> Path:
    """Write a fitted estimator, or a pipeline of :class:`RandomFeatures` and one.

    Args:
        model: what to write.
        path: an ``.npz`` file, or a folder that gets ``model.npz``. NumPy reads its arrays too:
            ``coef`` (K, d), ``intercept`` (K,), ``classes`` (K,).

    The names of the columns fitted to are kept, so that frames are checked as before, and what
    :meth:`SGDSoftmax.partial_fit` goes on from. Of the options only numbers and texts are kept: no
    callback, penalty operator or dictionary of class weights.

    Returns:
        The file's path.

    Raises:
        TypeError: if the model is another one.
        sklearn.exceptions.NotFittedError: if it is not fitted.
    """
    random, estimator = _parts(model)
    path = _file(path)
    name = next((name for name in SOLVERS.names() if SOLVERS.get(name) is type(estimator)), None)
    if name is None:
        raise TypeError(f"model must be one of {', '.join(SOLVERS.names())}; got {model!r}")
    check_is_fitted(estimator)
    options = {key: _plain(value) for key, value in estimator.get_params(deep=False).items()}
    if own := getattr(estimator, "solver_options", None):
        options["solver_options"] = {key: _plain(value) for key, value in own.items()}
    about: dict[str, Any] = {
        "solver": name,
        "options": {key: value for key, value in options.items() if value is not None},
        "n_iter": int(estimator.n_iter_),
        "fitted": {key: _plain(vars(estimator)[key]) for key in _FITTED if key in vars(estimator)},
    }
    names = getattr(estimator if random is None else random, "feature_names_in_", None)
    if names is not None:
        about["feature_names"] = names.tolist()
    classes = estimator.classes_
    arrays: dict[str, Any] = {
        "coef": estimator.coef_,
        "intercept": estimator.intercept_,
        "classes": np.array(classes.tolist()) if classes.dtype == object else classes,
    }
    if hasattr(estimator, "_velocity") and estimator._velocity.any():
        arrays["velocity"] = estimator._velocity
    if random is not None:
        check_is_fitted(random)
        about["random_features"] = {"activation": random.activation, "scale": random.scale_}
        arrays |= {"random_components": random.components_, "random_offset": random.offset_}
    arrays["about"] = np.array(json.dumps(about))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return path


def load_linear(path: str | Path) -> Any:
    """Read what :func:`save_linear` or ``lastlayer fit-linear`` wrote.

    Args:
        path: the file, or the folder that it is in.

    Returns:
        The fitted estimator, or the pipeline: ``predict``, ``predict_proba``,
        ``predict_log_proba`` and ``decision_function`` of arrays and tensors.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is corrupt or another one; the message names it.

    Example:
        >>> import tempfile
        >>> from sklearn.datasets import load_iris
        >>> from lastlayer.linear_model import LBFGSSoftmax
        >>> X, y = load_iris(return_X_y=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = load_linear(save_linear(LBFGSSoftmax().fit(X, y), folder))
        >>> model.predict(X[:2])
        array([0, 0])
    """
    path = _file(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}")
    arrays = _read(path)
    for name in _NEEDED:
        if name not in arrays:
            raise ValueError(f"{path}: not a linear model; it has no array {name!r}")
    coef, intercept, classes = arrays["coef"], arrays["intercept"], arrays["classes"]
    if coef.ndim != 2 or intercept.shape != coef.shape[:1] or classes.shape != coef.shape[:1]:
        raise ValueError(
            f"{path}: coef must be (K, d), intercept and classes (K,); got {coef.shape}, "
            f"{intercept.shape}, {classes.shape}"
        )
    try:
        about = json.loads(str(arrays["about"]))
        estimator: Any = SOLVERS.get(about["solver"])(**about["options"])
        estimator.n_iter_ = about["n_iter"]
        fitted = about.get("fitted", {})  # files of old have no such entry, nor names
        for name in fitted.keys() & set(_FITTED):
            setattr(estimator, name, fitted[name])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its entry 'about' cannot be read ({error})") from error
    estimator.coef_, estimator.intercept_, estimator.classes_ = coef, intercept, classes
    estimator.n_features_in_ = coef.shape[1]
    if "velocity" in arrays:
        estimator._velocity = arrays["velocity"]
    random = None
    if "random_features" in about:
        random = _random_features(path, arrays, about["random_features"])
    first = estimator if random is None else random
    if (names := about.get("feature_names")) is not None:
        width = first.n_features_in_
        if not isinstance(names, list) or len(names) != width:
            raise ValueError(
                f"{path}: feature_names must be a list of {width} names; got {names!r}"
            )
        first.feature_names_in_ = np.array(names, dtype=object)
    return estimator if random is None else make_pipeline(random, estimator)


def _random_features(
    path: Path, arrays: dict[str, NDArray[Any]], about: dict[str, Any]
) -> RandomFeatures:
    for name in _RANDOM:
        if name not in arrays:
            raise ValueError(f"{path}: it has no array {name!r}")
    components, offset = (arrays[name] for name in _RANDOM)
    if components.ndim != 2 or len(components) != arrays["coef"].shape[1]:
        raise ValueError(
            f"{path}: {len(components)} random features do not fit coef {arrays['coef'].shape}"
        )
    random = RandomFeatures(len(components), about["activation"], about["scale"])
    random.components_, random.offset_, random.scale_ = components, offset, about["scale"]
    random.n_features_in_ = components.shape[1]
    return random


def _parts(model: Any) -> tuple[RandomFeatures | None, LinearSoftmax]:
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    random = steps[0] if len(steps) == 2 and isinstance(steps[0], RandomFeatures) else None
    if not isinstance(steps[-1], LinearSoftmax) or (random is None and len(steps) != 1):
        raise TypeError(
            "model must be a softmax estimator, or a pipeline of RandomFeatures and one; "
            f"got {model!r}"
        )
    return random, steps[-1]


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path / FILE_NAME


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened here, since np.load leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz file ({error})") from error


def _plain(value: Any) -> Any:
    """Return a number or a text as JSON has it; None for any other option."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | float | str):
        return value
    return float(value) if isinstance(value, Real) else None
