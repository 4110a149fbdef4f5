"""Experiments: variants over seeds, planned from recipes and trained side by side; searches."""

from lastlayer._deprecated import renamed
from lastlayer.experiments.jobs import Job, plan, run
from lastlayer.experiments.recipe import (
    Recipe,
    catalog,
    default_recipe,
    recipe_names,
    resolve_recipe,
)
from lastlayer.experiments.tune import Trial, tune_variants
from lastlayer.incremental.methods import parse_variant
from lastlayer.training.variants import parse_grid, parse_option

__all__ = [
    "Job",
    "Recipe",
    "Trial",
    "catalog",
    "default_recipe",
    "parse_grid",
    "parse_option",
    "parse_variant",
    "plan",
    "recipe_names",
    "resolve_recipe",
    "run",
    "tune_variants",
]

__getattr__ = renamed(
    __name__,
    {
        "SCHEMES": "lastlayer.training.schemes.SCHEMES",
        "nest": "lastlayer.training.variants.nest",
        "parse_head": "lastlayer.training.variants.parse_word",
        "tune_heads": "tune_variants",
    },
)
