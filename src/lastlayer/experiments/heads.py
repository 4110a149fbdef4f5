"""Heads and regularisers as the command line writes them: ``name:option=value,option=value``."""

from __future__ import annotations

import re
from typing import Any

from lastlayer.experiments.schemes import SCHEMES
from lastlayer.training.options import parse_head, parse_option


def parse_variant(text: str) -> tuple[str, dict[str, Any]]:
    """Return what a head, with a regulariser or without, is called and changes in a configuration.

    Args:
        text: such as ``dropmax:temperature=0.2`` or ``softmax+disout:where=layer3,p=0.1``. Where
            neither ``where`` nor ``kind`` is given, the recipe's places stay. A name of
            :data:`SCHEMES` stands for a head and how its batches are drawn, in one stage or two;
            its options are entries of the stage that the head is trained in:
            ``balms:meta.initial_power=1,steps=500``.

    Returns:
        The names without options, ``head`` or ``head+regularizer``; and the changes, nested.

    Raises:
        ValueError: if a name or an option's value is missing, or there are two regularisers.

    Example:
        >>> parse_variant("softmax+dropout:p=0.2")[0]
        'softmax+dropout'
        >>> parse_variant("crt:steps=500")[1]["classifier_stage"]["steps"]
        500
    """
    # A plus sign before a digit is part of a number such as 1e+3.
    head, *regularizers = re.split(r"\+(?!\d)", text)
    name, options = parse_head(head)
    changes: dict[str, Any] = {"head": {"name": name, "options": options}}
    if name in SCHEMES:
        changes = SCHEMES[name].changes(options)
    if not regularizers:
        return name, changes
    if len(regularizers) > 1:
        raise ValueError(f"a run has one regularizer at most; got {text!r}")
    regularizer, options = parse_head(regularizers[0], kind="regularizer")
    where = {key: options.pop(key) for key in ("where", "kind", "position") if key in options}
    changes["regularizer"] = {"name": regularizer, "options": options}
    if where:
        changes["regularizer"]["places"] = [where]
    return f"{name}+{regularizer}", changes


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
