"""Variants as the command line writes them: ``head:option=value+addition:option=value``.

Here is the syntax, and what a word is. The words themselves stand beside what they describe: in the
registries of heads and regularizers, in :mod:`~lastlayer.training.schemes`, and in
:mod:`lastlayer.incremental.methods`, which puts them all together.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lastlayer._checks import did_you_mean
from lastlayer.heads import HEADS
from lastlayer.regularizers import REGULARIZERS
from lastlayer.training.config import merge

Changes = dict[str, Any]
PLACE = ("where", "kind", "position")


@dataclass(frozen=True)
class Word:
    """What a word of a variant stands for.

    Attributes:
        description: one line.
        changes: what the word alone changes in a configuration, nested.
        table: dotted name of the table whose entries the word's options are.
    """

    description: str
    changes: Changes
    table: str = "head.options"

    def apply(self, options: Changes) -> Changes:
        """Return the changes in a configuration, those of the options included."""
        changes = copy.deepcopy(self.changes)  # the caller may change what it gets
        for option, value in options.items():
            changes = merge(changes, nest(self.entry(option), value))
        return changes

    def entry(self, option: str) -> str:
        """Return the dotted entry of the configuration that an option is."""
        return f"{self.table}.{option}"


class _RegularizerWord(Word):
    """A regularizer: some of its options say where; without them the recipe's places stay."""

    def apply(self, options: Changes) -> Changes:
        place = {key: options[key] for key in PLACE if key in options}
        changes = super().apply({k: v for k, v in options.items() if k not in place})
        if place:
            changes["regularizer"]["places"] = [place]
        return changes


Words = Mapping[str, Word]


def head_words() -> dict[str, Word]:
    """Return the heads as words, third parties' included."""
    return {
        name: Word(description, {"head": {"name": name, "options": {}}})
        for name, description in HEADS.describe().items()
    }


def regularizer_words() -> dict[str, Word]:
    """Return the regularizers as words, third parties' included."""
    return {
        name: _RegularizerWord(
            description, {"regularizer": {"name": name, "options": {}}}, "regularizer.options"
        )
        for name, description in REGULARIZERS.describe().items()
    }


def expand(text: str, heads: Words, additions: Words) -> tuple[str, Changes]:
    """Return what a variant is called without options, and what it changes in a configuration.

    A word of ``heads`` stands first, ``additions`` after plus signs. ``ValueError`` if a word is
    unknown or missing, an addition comes twice, two of them exclude each other, or an option has no
    value.

    Example:
        >>> name, changes = expand("softmax+dropout:p=0.2", head_words(), regularizer_words())
        >>> name, changes["regularizer"]
        ('softmax+dropout', {'name': 'dropout', 'options': {'p': 0.2}})
    """
    # A plus sign before a digit is part of a number such as 1e+3.
    first, *others = re.split(r"\+(?!\d)", text)
    name, options = parse_word(first)
    changes = _find(name, heads, "head").apply(options)
    added: dict[str, Word] = {}
    for part in others:
        addition, options = parse_word(part, "addition")
        word = _find(addition, additions, "addition")
        if addition in added:
            raise ValueError(f"{addition} comes twice in {text!r}")
        for other, before in added.items():
            if both := _entries(word.changes) & _entries(before.changes):
                table = min(both).partition(".")[0].replace("_", "-")
                raise ValueError(
                    f"a run has one {table} at most: {other} and {addition} exclude each other; "
                    f"got both in {text!r}"
                )
        added[addition] = word
        changes = merge(changes, word.apply(options))
    return "+".join([name, *added]), changes


def _find(name: str, words: Words, kind: str) -> Word:
    if name not in words:
        hint = did_you_mean(name, words)
        raise ValueError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(words)}")
    return words[name]


def _entries(changes: Changes, prefix: str = "") -> set[str]:
    """Return the dotted entries of nested changes."""
    found: set[str] = set()
    for key, value in changes.items():
        inner = _entries(value, f"{prefix}{key}.") if isinstance(value, dict) else set()
        found |= inner or {prefix + key}
    return found


def split_variants(text: str) -> list[str]:
    """Return the variants of a list that is separated by commas; with options, by semicolons.

    Example:
        >>> split_variants("softmax,dropmax"), split_variants("softmax;dropmax:a=1,b=2")
        (['softmax', 'dropmax'], ['softmax', 'dropmax:a=1,b=2'])
    """
    separator = ";" if ";" in text or ":" in text else ","  # options hold commas
    return [variant.strip() for variant in text.split(separator) if variant.strip()]


def parse_word(text: str, kind: str = "head") -> tuple[str, Changes]:
    """Return a word and its options, whose values are TOML, or text if they are not.

    ``kind`` is what the word is called if it is missing or an option has no value: a
    ``ValueError``.

    Example:
        >>> parse_word("dropmax:temperature=0.2,form=iclr")
        ('dropmax', {'temperature': 0.2, 'form': 'iclr'})
    """
    name, _, options = text.strip().partition(":")
    if not name:
        article = "an" if kind[0] in "aeiou" else "a"
        raise ValueError(f"{article} {kind} needs a name; got {text!r}")
    return name, dict(parse_option(part) for part in options.split(",") if part)


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


def parse_grid(entries: Sequence[str]) -> dict[str, list[Any]]:
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


def nest(entry: str, value: Any) -> Changes:
    """Return a dotted entry as nested tables.

    Example:
        >>> nest("optimizer.lr", 0.1)
        {'optimizer': {'lr': 0.1}}
    """
    first, dot, rest = entry.partition(".")
    return {first: nest(rest, value)} if dot else {first: value}
