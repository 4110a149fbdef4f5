"""Commands that read what is there: runs, files and the catalog."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lastlayer.cli.app import app
from lastlayer.cli.console import print_table, say
from lastlayer.cli.information import show_information, show_localization


@app.command
def explain(
    run: Path,
    *,
    method: str = "retain",
    base: Path | None = None,
    data_dir: Annotated[Path | None, Parameter(env_var="LASTLAYER_DATA")] = None,
    count: int | None = None,
    window: int | None = None,
    boxes: bool = False,
    box_file: Path | None = None,
    threshold: float = 0.5,
    out: Path | None = None,
) -> None:
    """Draw what a run sees in easy and hard test inputs.

    Args:
        run: run directory.
        method: retain: the classes that a DropMax run holds possible; cam, infocam or infocam+:
            where in the image the predicted class is, for networks that end in average pooling.
        base: for retain: run directory of a base model whose mistakes choose and mark the hard
            inputs.
        data_dir: folder of the data's files, if not the run's.
        count: inputs of either kind; default: 10, of maps 5.
        window: for maps: side in cells of a window that they are averaged over.
        boxes: for maps: draw boxes of them, and print how well those of all test images meet the
            true ones, where these are known: from a file, or of the data source digit-canvas.
        box_file: true boxes of the test images, with the heading example,left,top,right,bottom
            (.csv), or an array (N, 4) or (N, M, 4) (.npy); half open, in pixels.
        threshold: for boxes: share of a map's range that a pixel must reach.
        out: picture to write (.png, .svg or .pdf); default: under figures in the run.
    """
    from lastlayer.report.explain import explain_run
    from lastlayer.report.explain_maps import explain_maps

    boxes = boxes or box_file is not None
    folder = None if data_dir is None else str(data_dir)
    if method == "retain":
        if boxes:
            raise ValueError("boxes are drawn of maps: give --method cam, infocam or infocam+")
        path = explain_run(
            run, base=base, data_dir=folder, count=10 if count is None else count, out=out
        )
    else:
        truth = None
        if boxes:
            truth = show_localization(
                run, box_file=box_file, window=window, threshold=threshold, data_dir=folder
            )
        path = explain_maps(
            run,
            method=method,
            window=window,
            data_dir=folder,
            count=5 if count is None else count,
            threshold=threshold if boxes else None,
            truth=truth,
            out=out,
        )
    say(str(path))


@app.command
def information(
    run: Path,
    *,
    data_dir: Annotated[Path | None, Parameter(env_var="LASTLAYER_DATA")] = None,
    num_samples: int = 30,
    masks: Annotated[int | None, Parameter(show=False)] = None,
    out: Path | None = None,
) -> None:
    """Tell how many nats a run knows about the label, of which classes, and in which layers.

    Args:
        run: run directory.
        data_dir: folder of the data's files, if not the run's.
        num_samples: random masks per example, for heads that predict with masks.
        masks: old name of num_samples.
        out: .json to write everything to.
    """
    from lastlayer._checks import check_count

    if masks is not None:
        warnings.warn(
            "--masks is now --num-samples; version 0.3 drops the old name",
            DeprecationWarning,
            stacklevel=1,
        )
        num_samples = masks
    check_count("num_samples", num_samples)
    show_information(run, data_dir=data_dir, num_samples=num_samples, out=out)


@app.command
def predict(run: Path, file: Path, *, out: Path | None = None, top: int = 3) -> None:
    """Predict the classes of the examples in a file.

    Args:
        run: run directory.
        file: .npz (array x), an image, a folder of images, or a .csv of texts.
        out: .csv to write all probabilities to.
        top: classes to print per example.
    """
    from lastlayer._checks import check_count
    from lastlayer.experiments.predict import predict_file
    from lastlayer.report import TextTable

    check_count("top", top)
    examples, names, prob = predict_file(run, file, out=out)
    best = prob.topk(min(top, len(names)), dim=-1)
    rows = [
        (example, *(f"{names[k]} {p:.3f}" for k, p in zip(index, values, strict=True)))
        for example, index, values in zip(
            examples, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
    ranks = (f"{rank}." for rank in range(1, best.values.shape[1] + 1))
    print_table(TextTable(("Example", *ranks), tuple(rows)))


@app.command(name="list")
def list_parts(what: str = "all") -> None:
    """List heads, schemes, methods, regularizers, data, models, augmentations, solvers, recipes,
    measures and figures.

    Args:
        what: one of these words, or all.
    """
    from lastlayer._checks import check_choice
    from lastlayer.evaluation import MEASURES
    from lastlayer.experiments import catalog
    from lastlayer.report.figures import FIGURES

    parts = catalog() | {"measures": MEASURES.describe(), "figures": FIGURES.describe()}
    check_choice("what", what, (*parts, "all"))
    for kind, described in parts.items():
        if what in (kind, "all"):
            width = max(map(len, described))
            lines = (f"  {name:<{width}}  {text}" for name, text in described.items())
            say("\n".join([kind, *lines]))
