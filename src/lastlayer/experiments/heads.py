"""Heads as the command line writes them: ``name`` or ``name:option=value,option=value``."""

from __future__ import annotations

import tomllib
from typing import Any


def parse_head(text: str) -> tuple[str, dict[str, Any]]:
    """Return a head's name and options.

    Args:
        text: such as ``dropmax`` or ``class-dropout:retain_prob=0.4``. Values are TOML; what is
            not TOML is text.

    Raises:
        ValueError: if an option has no value.

    Example:
        >>> parse_head("dropmax:temperature=0.2,form=iclr")
        ('dropmax', {'temperature': 0.2, 'form': 'iclr'})
    """
    name, _, options = text.strip().partition(":")
    if not name:
        raise ValueError(f"a head needs a name; got {text!r}")
    return name, dict(parse_option(part) for part in options.split(",") if part)


def parse_grid(entries: list[str]) -> dict[str, list[Any]]:
    """Return values by entry from ``entry=value,value`` texts.

    Raises:
        ValueError: if an entry has no value, or the same value or entry comes twice.

    Example:
        >>> parse_grid(["optimizer.lr=1e-3,2e-3"])
        {'optimizer.lr': [0.001, 0.002]}
    """
    grid: dict[str, list[Any]] = {}
    for entry in entries:
        name, equals, values = entry.partition("=")
        if not equals or not values:
            raise ValueError(f"a grid entry is written entry=value,value; got {entry!r}")
        parsed = [parse_option(f"{name}={value}")[1] for value in values.split(",")]
        if name.strip() in grid or any(value in parsed[:i] for i, value in enumerate(parsed)):
            raise ValueError(f"a grid holds every entry and value once; got {entry!r} again")
        grid[name.strip()] = parsed
    return grid


def nest(entry: str, value: Any) -> dict[str, Any]:
    """Return a dotted entry as nested tables.

    Example:
        >>> nest("optimizer.lr", 0.1)
        {'optimizer': {'lr': 0.1}}
    """
    first, dot, rest = entry.partition(".")
    return {first: nest(rest, value)} if dot else {first: value}


def parse_option(text: str) -> tuple[str, Any]:
    """Return key and value of ``key=value``.

    Raises:
        ValueError: if there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"an option is written key=value; got {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
