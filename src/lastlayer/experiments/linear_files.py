"""The files of a fitted linear model: ``model.npz``, ``history.json``, ``summary.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lastlayer._files import atomic_write, read_json, with_null
from lastlayer.linear_model import save_linear

Numbers = dict[str, Any]


def finished_summary(folder: Path, described: Numbers, traced: bool) -> Numbers | None:
    """Return the summary of a finished fit with the settings and data described, or None.

    If ``traced`` its history must tell the accuracy on the way.
    """
    if not (folder / "model.npz").is_file():
        return None
    try:
        summary: Numbers = read_json(folder / "summary.json")
        same = summary["settings"] == described
        if not same or (traced and "test_accuracy" not in read_json(folder / "history.json")):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not finished, or damaged: fitted again
    return summary | {"reused": True}


def write_fit(folder: Path, model: Any, summary: Numbers, history: Numbers) -> None:
    """Write a fit's files, the summary last: a folder with a summary is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").unlink(missing_ok=True)
    save_linear(model, folder)
    for name, content in (("history", history), ("summary", summary)):
        with atomic_write(folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Return nested data as JSON has them: lists, and null for NaN and infinity."""
    return with_null(value, lambda number: not math.isfinite(number))
