"""Everything that can be chosen by name, for ``lastlayer list``."""

from __future__ import annotations

from lastlayer.experiments.recipe import Recipe, recipe_names
from lastlayer.experiments.schemes import SCHEMES


def catalog() -> dict[str, dict[str, str]]:
    """Return one-line descriptions by kind and name."""
    from lastlayer.data import AUGMENTATIONS, SOURCES
    from lastlayer.heads import HEADS
    from lastlayer.incremental.methods import ADDITIONS, METHODS
    from lastlayer.linear_model import SOLVERS
    from lastlayer.models import BACKBONES
    from lastlayer.regularizers import REGULARIZERS

    return {
        "heads": HEADS.describe(),
        "schemes": {name: scheme.description for name, scheme in SCHEMES.items()},
        "methods": {name: method[2] for name, method in METHODS.items()}
        | {f"...+{word}": addition.description for word, addition in ADDITIONS.items()},
        "regularizers": REGULARIZERS.describe(),
        "data": SOURCES.describe(),
        "models": BACKBONES.describe(),
        "augmentations": AUGMENTATIONS.describe(),
        "solvers": SOLVERS.describe(),
        "recipes": {name: Recipe.load(name).title for name in recipe_names()},
    }
