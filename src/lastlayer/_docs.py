"""Docstrings and signatures with a part in common: written once, and whole in ``help``."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

_PLACE = re.compile(r"^( +)(?:\*{0,2}\w+: )?\{([^{}]+)\}$", re.MULTILINE)


def filled_in(text: str, shared: Mapping[str, Mapping[str, str]]) -> str:
    """Put what arguments mean into the places of a docstring that name them in braces.

    A line ``{name}``, with an argument before it or without, is a place if ``shared`` has that
    name; it becomes a line ``argument: meaning`` for each argument that the docstring does not
    explain.
    """

    def lines(place: re.Match[str]) -> str:
        indent = place[1]
        if place[2] not in shared:
            return place[0]
        return "\n".join(
            textwrap.fill(
                f"{name}: {meaning}",
                100,
                initial_indent=indent,
                subsequent_indent=indent + "    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for name, meaning in shared[place[2]].items()
            if not re.search(rf"^ +{name}: (?!\{{)", text, re.MULTILINE)
        )

    return _PLACE.sub(lines, text)


def show_keywords(
    function: Callable[..., Any],
    defaults: Mapping[str, object],
    annotations: Mapping[str, Any] | None = None,
) -> None:
    """Let ``inspect.signature`` show keywords, by their defaults, instead of ``**arguments``.

    A function without ``**arguments`` stays as it is.
    """
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    if len(own) == len(signature.parameters):
        return
    hints = annotations or {}
    more = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=hints.get(name, inspect.Parameter.empty),
        )
        for name, default in defaults.items()
    ]
    function.__signature__ = signature.replace(parameters=own + more)  # type: ignore[attr-defined]
