"""``lastlayer figure``: any figure by name, from runs that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lastlayer.cli.app import app
from lastlayer.cli.console import say


@app.command
def figure(
    name: str,
    *paths: Path,
    option: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    data_dir: Annotated[Path | None, Parameter(env_var="LASTLAYER_DATA")] = None,
    out: Path | None = None,
) -> None:
    """Draw one figure from runs that are there; `lastlayer list figures` says more of each.

    From runs: comparison, curves, reliability, confusion; filtering of runs on images.
    From long-tailed runs: class-accuracy, tail-confusion, and rates of a Meta Sampler.
    From runs over tasks: accuracy, old-new, tasks, taken-for.
    From a folder of fit-linear: convergence, path. From nothing: contours.

    Args:
        name: of the figure.
        paths: run directories, folders of them such as `lastlayer compare` leaves, or a
            comparison.json.
        option: an option of the figure, such as measure=error; may come several times.
        data_dir: folder of the data's files, if not the run's.
        out: picture to write (.png, .svg or .pdf); default: NAME.png in this folder.
    """
    from inspect import signature

    from lastlayer.experiments import parse_option
    from lastlayer.report import save_figure
    from lastlayer.report.figures import FIGURES, draw_figure

    options = dict(map(parse_option, option))
    if data_dir is not None and "data_dir" in signature(FIGURES.get(name)).parameters:
        options.setdefault("data_dir", str(data_dir))
    path = Path(f"{name}.png") if out is None else out
    say(str(save_figure(draw_figure(name, paths, **options), path)))
