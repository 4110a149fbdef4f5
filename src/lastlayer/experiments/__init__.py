"""Experiments: recipes, comparisons of heads over seeds, searches."""

from lastlayer.experiments.catalog import catalog
from lastlayer.experiments.compare import Job, plan, run
from lastlayer.experiments.heads import parse_grid, parse_variant
from lastlayer.experiments.recipe import Recipe, default_recipe, recipe_names, resolve_recipe
from lastlayer.experiments.schemes import SCHEMES, Scheme
from lastlayer.experiments.tune import Trial, tune_heads
from lastlayer.training.options import nest, parse_head, parse_option

__all__ = [
    "SCHEMES",
    "Job",
    "Recipe",
    "Scheme",
    "Trial",
    "catalog",
    "default_recipe",
    "nest",
    "parse_grid",
    "parse_head",
    "parse_option",
    "parse_variant",
    "plan",
    "recipe_names",
    "resolve_recipe",
    "run",
    "tune_heads",
]
