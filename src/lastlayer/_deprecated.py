"""Old names of public things: they work for one version more, and say the new name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def renamed(module: str, names: Mapping[str, str], *, until: str = "0.3") -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that finds what was renamed or moved.

    Written once in the module that had the names: ``__getattr__ = renamed(__name__, {...})``.

    Args:
        module: the module's ``__name__``.
        names: new name by old one: of the same module, or dotted with another module's, such as
            ``"lastlayer.information.h_score"``.
        until: the version that no longer knows the old names.

    Returns:
        A function of a name: the object, with a ``DeprecationWarning`` at the caller's line.

    >>> find = renamed("lastlayer.heads", {"OldSoftmax": "Softmax"})
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     old = find("OldSoftmax")
    >>> old.__name__, str(caught[0].message).partition(";")[0]
    ('Softmax', 'lastlayer.heads.OldSoftmax is now lastlayer.heads.Softmax')
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
