"""Recipes: named experiments as TOML, with the published numbers they are held against.

And the catalog: what recipes and commands choose from by name.
"""

from __future__ import annotations

import tomllib
import warnings
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lastlayer._checks import did_you_mean
from lastlayer.experiments.kinds import KINDS, KindName
from lastlayer.incremental.methods import parse_variant, variant_words
from lastlayer.training.config import RunConfig, explain, merge, rename_entry

#: Entries of a recipe that version 0.1 called otherwise.
RENAMED = {"heads": "variants", "head_config": "variant_config"}


class AppliesTo(BaseModel):
    """Which comparisons take a recipe for their default settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: tuple[str, ...]
    model: tuple[str, ...] = ()


class Recipe(BaseModel):
    """One experiment: what is compared, how it is trained, what was published.

    Attributes:
        kind: ``"heads"``, a classifier each; or ``"incremental"``: over a sequence of tasks.
        title: one line.
        source: where the protocol comes from.
        seeds: number of seeds.
        variants: what is compared, as the command line writes it, in the order of the table; the
            first is the baseline.
        config: the runs' configuration, as far as it differs from the default.
        variant_config: further differences, by variant without options.
        published: published test error in per cent (over tasks: average incremental accuracy), by
            variant without options and source.
        published_note: what to know about the published numbers.
        applies_to: comparisons that take this recipe by default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: KindName = "heads"
    title: str
    source: str = ""
    seeds: Annotated[int, Field(gt=0)] = 5
    variants: tuple[str, ...]
    config: dict[str, Any] = {}
    variant_config: dict[str, dict[str, Any]] = {}
    published: dict[str, dict[str, float]] = {}
    published_note: str = ""
    applies_to: AppliesTo | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """The old name of :attr:`variants`."""
        _warn_of("heads")
        return self.variants

    @property
    def head_config(self) -> dict[str, dict[str, Any]]:
        """The old name of :attr:`variant_config`."""
        _warn_of("head_config")
        return self.variant_config

    @model_validator(mode="before")
    @classmethod
    def _by_new_names(cls, entries: Any) -> Any:
        if isinstance(entries, dict):
            for old, new in RENAMED.items():
                entries = rename_entry(entries, old, new)
        return entries

    @classmethod
    def load(cls, name: str) -> Self:
        """Read a recipe by name, or from a file whose name ends in ``.toml``.

        Raises:
            ValueError: if there is none, or it is not a recipe; the message names it.
        """
        if name.endswith(".toml"):
            if not Path(name).is_file():
                raise ValueError(f"there is no recipe file {name}")
            content = Path(name).read_bytes()
        else:
            known = recipe_names()
            if name not in known:
                near = did_you_mean(name, known)
                raise ValueError(f"unknown recipe {name!r}.{near} Known: {', '.join(known)}")
            content = (_folder() / f"{name}.toml").read_bytes()
        try:
            return cls.model_validate(tomllib.loads(content.decode("utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"recipe {name} is not TOML: {error}") from error
        except ValidationError as error:
            raise ValueError(f"recipe {name}: {explain(error, cls)}") from error

    def run_config(self, variant: str, changes: dict[str, Any]) -> RunConfig:
        """Return the configuration of one variant's runs, with ``changes`` laid over it.

        Args:
            variant: as the command line writes it.
            changes: the configuration's entries that were given, nested.

        Raises:
            ValueError: if the variant or a setting does not fit.
        """
        kind = KINDS[self.kind]
        name, own = parse_variant(variant)
        kind.check_variant(variant, own)
        plain = kind.config()
        # Options in a recipe that does not name their part are those of the default one.
        merged = {part: {"name": getattr(plain, part).name} for part in ("data", "model")}
        for layer in (self.config, self.variant_config.get(name, {}), changes, own):
            merged = merge(merged, kind.config.current(layer))
        return plain.updated(merged)


def _warn_of(old: str) -> None:
    message = f"Recipe.{old} is now Recipe.{RENAMED[old]}; version 0.3 drops the old name"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    files = (Path(entry.name) for entry in _folder().iterdir())
    return sorted(file.stem for file in files if file.suffix == ".toml")


def default_recipe(data: str, model: str | None, kind: KindName = "heads") -> str | None:
    """Return the recipe of a kind for a data source and backbone, or None."""
    for name in recipe_names():
        recipe = Recipe.load(name)
        scope = recipe.applies_to
        if recipe.kind != kind or scope is None or data not in scope.data:
            continue
        if model is None or not scope.model or model in scope.model:
            return name
    return None


def resolve_recipe(
    name: str | None, changes: dict[str, Any], kind: KindName = "heads"
) -> tuple[Recipe, str]:
    """Return the recipe a command starts from, and what to call it.

    Args:
        name: the recipe that was asked for; None for the one that fits the data and backbone.
        changes: the configuration's entries that were given.
        kind: what the command compares.

    Raises:
        ValueError: if there is no such recipe, or it is of another kind.
    """
    if name is None:
        data = changes.get("data", {}).get("name", "digits")
        name = default_recipe(data, changes.get("model", {}).get("name"), kind)
    if name is None:
        return _DEFAULTS[kind], "the defaults"
    recipe = Recipe.load(name)
    if recipe.kind != kind:
        raise ValueError(f"recipe {name} is for lastlayer {KINDS[recipe.kind].command}")
    return recipe, f"recipe {name}"


_DEFAULTS: dict[KindName, Recipe] = {
    "heads": Recipe(title="Heads side by side", variants=("softmax", "label-smoothing", "dropmax")),
    "incremental": Recipe(
        kind="incremental",
        title="Classes one task after another",
        variants=("softmax", "weighted", "balanced-softmax", "balanced"),
        seeds=3,
    ),
}


def _folder() -> Any:
    return resources.files("lastlayer.experiments") / "recipes"


def catalog() -> dict[str, dict[str, str]]:
    """Return everything that can be chosen by name: one-line descriptions by kind and name."""
    from lastlayer.data import AUGMENTATIONS, SOURCES
    from lastlayer.linear_model import SOLVERS
    from lastlayer.models import BACKBONES

    words = {
        kind: {name: word.description for name, word in table.items()}
        for kind, table in variant_words().items()
    }
    additions = {f"...+{name}": text for name, text in words["additions"].items()}
    return {
        "heads": words["heads"],
        "schemes": words["schemes"],
        "methods": words["methods"] | additions,
        "regularizers": words["regularizers"],
        "data": SOURCES.describe(),
        "models": BACKBONES.describe(),
        "augmentations": AUGMENTATIONS.describe(),
        "solvers": SOLVERS.describe(),
        "recipes": {name: Recipe.load(name).title for name in recipe_names()},
    }
