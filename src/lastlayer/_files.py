"""Files that are whole or not there, and numbers in those that are JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written there then replaces ``path`` in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, *, object_hook: Callable[[Any], Any] | None = None) -> Any:
    """Return what a JSON file holds; ``ValueError``, which names the file, if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=object_hook)
    except ValueError as error:
        raise ValueError(f"{path} is corrupt: {error}") from error


def with_null(value: Any, missing: Callable[[float], bool]) -> Any:
    """Return nested data, tuples as lists, with null for ``missing`` numbers, as JSON has them."""
    if isinstance(value, dict):
        return {key: with_null(entry, missing) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [with_null(entry, missing) for entry in value]
    return None if isinstance(value, float) and missing(value) else value


def with_nan(value: Any) -> Any:
    """Return nested data with NaN for null, as far as :func:`with_null` can be undone."""
    if isinstance(value, dict):
        return {key: with_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_nan(entry) for entry in value]
    return math.nan if value is None else value
