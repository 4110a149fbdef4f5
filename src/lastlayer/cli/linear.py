"""Commands on frozen features: write a run's, and fit linear models to any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lastlayer.cli.app import app
from lastlayer.cli.console import print_table, say, share_progress
from lastlayer.cli.settings import DataSettings

if TYPE_CHECKING:
    from lastlayer.experiments.linear_data import LinearData

ESSENTIAL = ("Solver", "Seconds", "Gap", "Test accuracy %", "Test NLL")


@app.command
def features(
    run: Path,
    *,
    out: Path | None = None,
    data_dir: Annotated[Path | None, Parameter(env_var="LASTLAYER_DATA")] = None,
) -> None:
    """Write the features that a run's head sees, with labels, to one .npz file.

    Args:
        run: run directory.
        out: .npz file; default: features.npz in the run.
        data_dir: folder of the data's files, if not the run's.
    """
    from lastlayer.experiments.features import write_features

    path = run / "features.npz" if out is None else out
    folder = None if data_dir is None else str(data_dir)
    arrays = write_features(run, path, data_dir=folder)
    shapes = (f"{name} {array.shape}" for name, array in arrays.items() if name.startswith("x"))
    say(f"{path}: {', '.join(shapes)}")


@Parameter(name="*")
@dataclass(frozen=True)
class FeatureSettings(DataSettings):
    """What linear models are fitted to: features of files, or a data source's inputs, flattened."""

    features: str | None = None
    (
        ".npz file with x and y, or x_train, y_train, x_test, y_test, such as `lastlayer features` "
        "writes; or .npy or parquet files, also as a quoted pattern such as 'part*.parquet', which "
        "are read block by block and may be larger than memory."
    )

    target: str | None = None
    (
        "Labels of .npy or parquet files: a .npy file, FILE.npz:NAME for an array of an .npz file, "
        "or a column of the parquet files."
    )

    columns: str | None = None
    "Columns of parquet files that are features, separated by commas; default: all but the target."

    memory_bound: int | None = None
    "Bytes of .npy or parquet features in memory at once; default: 2^28."

    cluster: str | None = None
    (
        "Address of a dask scheduler, such as tcp://HOST:8786, whose workers read the .npy or "
        "parquet files and keep them; needs lastlayer[cluster]."
    )

    data_option: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    "An option of the data source, such as layout=NHWC; may come several times."

    dtype: str = "float32"
    "float32 or float64."

    @contextmanager
    def load(self, *, held_out: bool, seed: int, device: str | None) -> Iterator[LinearData]:
        """Give the data, with the cluster that holds them if there is one.

        Raises:
            ValueError: if settings do not fit each other.
        """
        from lastlayer.experiments import parse_option
        from lastlayer.experiments.linear_data import load_linear_data
        from lastlayer.experiments.linear_rows import is_read_in_blocks, load_linear_files
        from lastlayer.linear_model.rows.dask import cluster_client

        if self.features is not None and self.data is not None:
            raise ValueError(
                f"give features or data, not both; got {self.features!r} and {self.data!r}"
            )
        common: dict[str, Any] = {
            "train_size": self.train_size,
            "held_out": held_out,
            "validation_size": _size(self.validation_size),
            "seed": seed,
            "dtype": self.dtype,
        }
        options = dict(map(parse_option, self.data_option))
        if self.features is not None and is_read_in_blocks(self.features):
            columns = None if self.columns is None else [c.strip() for c in self.columns.split(",")]
            if self.memory_bound is not None:
                common["memory_bound"] = self.memory_bound
            with nullcontext() if self.cluster is None else cluster_client(self.cluster) as client:
                yield load_linear_files(
                    self.features,
                    self.target,
                    columns=columns,
                    device=device,
                    cluster=client,
                    options=options,
                    **common,
                )
            return
        for name in ("target", "columns", "memory_bound", "cluster"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} is for features in .npy or parquet files; got {name}="
                    f"{getattr(self, name)!r} with {self.features or 'a data source'}"
                )
        yield load_linear_data(
            features=None if self.features is None else Path(self.features),
            data=self.data,
            data_dir=self.data_dir,
            options=options,
            **common,
        )


@app.command(name="fit-linear")
def fit_linear(
    *,
    settings: FeatureSettings | None = None,
    solver: str = "auto",
    C: Annotated[float, Parameter(name="--C")] = 1.0,
    path: str | None = None,
    one_standard_error: Annotated[bool, Parameter(negative=())] = False,
    random_features: int | None = None,
    activation: str = "relu",
    tol: float | None = None,
    max_iter: int | None = None,
    intercept: bool = True,
    class_weight: str | None = None,
    device: str | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Fit softmax regression to frozen features, by one solver or several side by side.

    Called again with the same settings and data, finished solvers are not fitted again.

    Args:
        settings: what is fitted to.
        solver: one or more, separated by commas; see `lastlayer list solvers`. auto takes the one
            that suits the data's size.
        C: inverse strength of the penalty, as in scikit-learn's LogisticRegression.
        path: strengths separated by commas; C is chosen from them by held-out NLL, of
            x_validation of the file, or of --validation-size training examples, by default a tenth.
        one_standard_error: of a path, choose the strongest penalty within one standard error.
        random_features: width of a random layer between inputs and model.
        activation: that layer's nonlinearity: relu, tanh, sigmoid or cos.
        tol: certified relative gap to the optimum at which to stop; default: the solver's.
        max_iter: most iterations; default: the solver's.
        intercept: with an intercept or without.
        class_weight: balanced: every class counts the same.
        device: where to compute, such as cuda.
        seed: fixes draws, the random layer and the order of sgd.
        out: folder; default: linear-NAME under runs.
    """
    from lastlayer._checks import check_count
    from lastlayer.experiments.linear import LinearSettings, fit_solvers

    solvers = [name.strip() for name in solver.split(",") if name.strip()]
    how = LinearSettings(
        C=C,
        path=_numbers(path) if path is not None else (),
        one_standard_error=one_standard_error,
        tol=tol,
        max_iter=max_iter,
        intercept=intercept,
        class_weight=class_weight,
        random_features=random_features,
        activation=activation,
        seed=seed,
    )
    for name in solvers:  # mistakes before the data are read
        how.estimator(name)
    if random_features is not None:
        check_count("random_features", random_features)
    settings = settings or FeatureSettings()
    with settings.load(held_out=bool(how.path), seed=seed, device=device) as loaded:
        folder = out or Path("runs") / f"linear-{loaded.name.replace(':', '-')}"
        examples, width = loaded.train.shape
        say(f"{folder}: {loaded.name}, {examples} training examples of {width} features")
        for note in loaded.notes:
            say(f"note: {note}")
        with share_progress() as progress:
            summaries = fit_solvers(solvers, loaded, how, folder, device=device, progress=progress)
    _show(summaries, folder)


def _show(summaries: list[dict[str, Any]], folder: Path) -> None:
    """Print the table and what went wrong; write table and picture."""
    table = _table(summaries)
    for summary in summaries:
        for note in summary["notes"]:
            say(f"note: {note}")
        if summary["reused"]:
            say(f"{summary['solver']}: from {folder / summary['solver']}")
    print_table(table, _table(summaries, ESSENTIAL))
    (folder / "table.md").write_text(table.to_markdown(), encoding="utf-8")
    picture = _draw(summaries, folder)
    say(f"models: {folder}" + (f"  picture: {picture}" if picture is not None else ""))


def _table(summaries: list[dict[str, Any]], columns: tuple[str, ...] | None = None) -> Any:
    from lastlayer.report import TextTable

    bounds = [summary["bound"] for summary in summaries if summary["bound"] is not None]
    rows = [_cells(summary, bounds) for summary in summaries]
    chosen = columns or tuple(rows[0])
    first = summaries[0]
    note = (
        "Objective: cross-entropy in nats, summed, plus penalty; gap: how far above its minimum at "
        f"most, relative, certified. {first['train_size']} training examples of {first['data']}."
    )
    if first["path"] is not None:
        note += " C was chosen by held-out NLL; seconds are those of the path."
    return TextTable(chosen, tuple(tuple(row[name] for name in chosen) for row in rows), note)


def _cells(summary: dict[str, Any], bounds: list[float]) -> dict[str, str]:
    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    train, test = summary["train"], summary["test"]
    # One solver's bound holds for all: the objective is the same, unless each has its own C.
    shared = {}
    if len(bounds) > 1 and summary["path"] is None:
        above = summary["objective"] / max(bounds) - 1
        shared = {"Above the best bound": f"{max(above, 0.0):.1e}"}
    taken = summary.get("taken")
    return {
        "Solver": summary["solver"] + (f" ({taken})" if taken else ""),
        "C": "inf" if summary["C"] is None else f"{summary['C']:g}",
        "Iterations": str(summary["iterations"]),
        "Seconds": f"{summary['seconds']:.2f}",
        "Objective": f"{summary['objective']:.6g}",
        "Gap": number(summary["gap"], ".1e"),
        **shared,
        "Train accuracy %": f"{100 - 100 * train['error']:.2f}",
        "Test accuracy %": f"{100 - 100 * test['error']:.2f}",
        "Test NLL": number(test["nll"], ".4f"),
    }


def _draw(summaries: list[dict[str, Any]], folder: Path) -> Path | None:
    """Draw the path, or several solvers' ways to the optimum."""
    from lastlayer.report import convergence_figure, path_figure, save_figure
    from lastlayer.report.run_files import read_solvers

    if summaries[0]["path"] is not None:
        figure = path_figure({s["solver"]: s["path"] for s in summaries})
        return save_figure(figure, folder / "path.png")
    if len(summaries) < 2:
        return None
    curves = read_solvers([folder / summary["solver"] for summary in summaries]).curves
    return save_figure(convergence_figure(curves), folder / "convergence.png")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(
            f"path must be numbers separated by commas, such as 1e-3,1e-2; got {text!r}"
        ) from None


def _size(text: str | None) -> float | None:
    """Return a count as int and a fraction as float: 1 is one example, 0.5 a half."""
    if text is None:
        return None
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        raise ValueError(f"validation_size must be a number; got {text!r}") from None
