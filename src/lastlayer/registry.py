"""Parts found by name: ours register themselves, a third party's come through an entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from lastlayer._checks import did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A named family of parts.

    Names are looked up among the registered ones first, then among the entry points of ``group``,
    so that an installed package adds a part without being imported by path.

    Args:
        kind: what the parts are, for messages ("head").
        group: entry-point group of third-party parts ("lastlayer.heads").

    Example:
        >>> shapes = Registry[int](kind="shape", group="example.shapes")
        >>> shapes.add("triangle", 3, description="three sides")
        >>> shapes.get("triangle")
        3
    """

    def __init__(self, *, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._parts: dict[str, T] = {}
        self._descriptions: dict[str, str] = {}

    def add(self, name: str, part: T, *, description: str) -> None:
        """Register ``part`` under ``name``.

        Raises:
            ValueError: if the name is taken.
        """
        if name in self._parts:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._parts[name] = part
        self._descriptions[name] = description

    def register(self, name: str, *, description: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates under ``name``."""

        def decorate(part: T) -> T:
            self.add(name, part, description=description)
            return part

        return decorate

    def get(self, name: str) -> T:
        """Return the part called ``name``.

        Raises:
            ValueError: if no part has that name; the message lists near and known names.
        """
        if name in self._parts:
            return self._parts[name]
        for entry in entry_points(group=self.group):
            if entry.name == name:
                part: T = entry.load()
                return part
        hint = did_you_mean(name, self.names())
        raise ValueError(f"unknown {self.kind} {name!r}.{hint} Known: {', '.join(self.names())}")

    def names(self) -> list[str]:
        """Return all names, ours in the order of registration, then third parties'."""
        return [name for name, _ in self._listed()]

    def describe(self) -> dict[str, str]:
        """Return the one-line description of every part by name."""
        return dict(self._listed())

    def _listed(self) -> Iterator[tuple[str, str]]:
        yield from self._descriptions.items()
        for entry in entry_points(group=self.group):
            if entry.name not in self._parts:
                yield entry.name, f"from {entry.value}"
