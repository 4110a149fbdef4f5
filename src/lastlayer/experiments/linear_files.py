"""The files of a fitted linear model: ``model.npz``, ``history.json``, ``summary.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lastlayer._files import atomic_write
from lastlayer.linear_model import save_linear

Numbers = dict[str, Any]


def finished_summary(folder: Path, described: Numbers, traced: bool) -> Numbers | None:
    """Return the summary of a finished fit with the settings and data described, or None.

    If ``traced`` its history must tell the accuracy on the way.
    """
    if not (folder / "model.npz").is_file():
        return None
    try:
        summary: Numbers = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        same = summary["settings"] == described
        if not same or (traced and "test_accuracy" not in read_history(folder)):
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
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_history(folder: Path) -> Numbers:
    """Return a solver's ``history.json``, with NaN where JSON has no number."""
    found: Numbers = with_nan(json.loads((folder / "history.json").read_text(encoding="utf-8")))
    return found


def with_nan(value: Any) -> Any:
    """Return nested data as :func:`plain` took them, NaN for null."""
    if isinstance(value, dict):
        return {key: with_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_nan(entry) for entry in value]
    return math.nan if value is None else value
