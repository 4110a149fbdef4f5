"""Old names of public things: they work for one version more, and say the new name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def renamed(module: str, names: Mapping[str, str], *, until: str = "0.3") -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that finds, and warns of, what was renamed or moved.

    ``names`` are new names by old ones: of the same module, or dotted with another module's.
    Version ``until`` no longer knows the old ones.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].rpartition(".")
        home = home or module
        warnings.warn(
            f"{module}.{name} is now {home}.{new}; version {until} drops the old name",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(home), new)

    return find
