"""Options as the command line writes them: ``name:option=value,option=value``."""

from __future__ import annotations

import tomllib
from typing import Any


def parse_head(text: str, kind: str = "head") -> tuple[str, dict[str, Any]]:
    """Return a head's, or another kind's, name and options.

    Args:
        text: such as ``dropmax`` or ``class-dropout:retain_prob=0.4``. Values are TOML; what is
            not TOML is text.
        kind: what it is called in a message.

    Raises:
        ValueError: if an option has no value.

    Example:
        >>> parse_head("dropmax:temperature=0.2,form=iclr")
        ('dropmax', {'temperature': 0.2, 'form': 'iclr'})
    """
    name, _, options = text.strip().partition(":")
    if not name:
        article = "an" if kind[0] in "aeiou" else "a"
        raise ValueError(f"{article} {kind} needs a name; got {text!r}")
    return name, dict(parse_option(part) for part in options.split(",") if part)


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
