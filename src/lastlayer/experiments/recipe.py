"""Recipes: named experiments as TOML, with the published numbers they are held against."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lastlayer.experiments.heads import parse_variant
from lastlayer.incremental import IncrementalConfig, parse_method
from lastlayer.training.config import RunConfig, explain, merge

RecipeKind = Literal["heads", "incremental"]


class AppliesTo(BaseModel):
    """Which comparisons take a recipe for their default settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: tuple[str, ...]
    model: tuple[str, ...] = ()


class Recipe(BaseModel):
    """One experiment: what is compared, how it is trained, what was published.

    Attributes:
        kind: ``"heads"``, a run each; or ``"incremental"``: methods over a sequence of tasks.
        title: one line.
        source: where the protocol comes from.
        seeds: number of seeds.
        heads: heads, with a regulariser or without, or methods, in the order of the table; the
            first is the baseline.
        config: the runs' configuration, as far as it differs from the default.
        head_config: further differences, by head or head and regulariser, without options.
        published: published test error in per cent (of methods: average incremental accuracy), by
            head and source.
        published_note: what to know about the published numbers.
        applies_to: comparisons that take this recipe by default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: RecipeKind = "heads"
    title: str
    source: str = ""
    seeds: Annotated[int, Field(gt=0)] = 5
    heads: tuple[str, ...]
    config: dict[str, Any] = {}
    head_config: dict[str, dict[str, Any]] = {}
    published: dict[str, dict[str, float]] = {}
    published_note: str = ""
    applies_to: AppliesTo | None = None

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
                raise ValueError(f"unknown recipe {name!r}. Known: {', '.join(known)}")
            content = (_folder() / f"{name}.toml").read_bytes()
        try:
            return cls.model_validate(tomllib.loads(content.decode("utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"recipe {name} is not TOML: {error}") from error
        except ValidationError as error:
            raise ValueError(f"recipe {name}: {explain(error)}") from error

    def run_config(self, variant: str, changes: dict[str, Any]) -> RunConfig:
        """Return the configuration of one head's runs, with ``changes`` laid over it.

        Args:
            variant: a head as the command line writes it, with a regulariser or without.
            changes: the configuration's entries that were given, nested.
        """
        incremental = self.kind == "incremental"
        name, own = parse_method(variant) if incremental else parse_variant(variant)
        recipes = merge(self.config, self.head_config.get(name, {}))
        plain = IncrementalConfig() if incremental else RunConfig()
        return plain.updated(merge(merge(recipes, changes), own))


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    files = (Path(entry.name) for entry in _folder().iterdir())
    return sorted(file.stem for file in files if file.suffix == ".toml")


def default_recipe(data: str, model: str | None, kind: RecipeKind = "heads") -> str | None:
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
    name: str | None, changes: dict[str, Any], kind: RecipeKind = "heads"
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
        command = "lastlayer learn" if recipe.kind == "incremental" else "lastlayer compare"
        raise ValueError(f"recipe {name} is for {command}")
    return recipe, f"recipe {name}"


_DEFAULTS: dict[RecipeKind, Recipe] = {
    "heads": Recipe(title="Heads side by side", heads=("softmax", "label-smoothing", "dropmax")),
    "incremental": Recipe(
        kind="incremental",
        title="Classes one task after another",
        heads=("softmax", "weighted", "balanced-softmax", "balanced"),
        seeds=3,
    ),
}


def _folder() -> Any:
    return resources.files("lastlayer.experiments") / "recipes"
