"""Patterns of dotted names: ``*`` stays within one name, ``**`` crosses the dots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def matching_names(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the dotted names that a pattern means, in their order.

    Within one name, ``*`` stands for any characters but a dot, ``?`` for one, ``[12]`` for one of
    several. ``**`` between dots stands for any number of names: none or more, at the end one or
    more; beside other characters it raises ``ValueError``. ``""`` means the empty name alone.

    >>> matching_names("**.fc?", ["", "blocks", "blocks.0", "blocks.0.mlp", "blocks.0.mlp.fc1"])
    ['blocks.0.mlp.fc1']
    """
    parts = pattern.split(".")
    for part in parts:
        if "**" in part and part != "**":
            raise ValueError(f"** stands alone between dots, as in a.**.b; got {pattern!r}")
    if pattern == "":
        return [name for name in names if name == ""]
    return [name for name in names if name and _matches(name.split("."), parts)]


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not names
    first, rest = parts[0], parts[1:]
    if first == "**":
        least = 0 if rest else 1
        return any(_matches(names[taken:], rest) for taken in range(least, len(names) + 1))
    return bool(names) and fnmatchcase(names[0], first) and _matches(names[1:], rest)
