"""The arguments that all estimators share: their names, defaults and docs, written once.

A class names its own arguments, and takes these as ``**shared: Unpack[SharedArguments]``; its
signature and docstring get them from here, for ``help`` and for scikit-learn, which finds an
estimator's parameters in the signature.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, TypedDict

from lastlayer.linear_model.solvers.progress import Callback


class SharedArguments(TypedDict, total=False):
    """What every estimator takes, beside ``C`` and its own."""

    penalty_operator: Any
    fit_intercept: bool
    class_weight: Any
    tol: float
    max_iter: int
    warm_start: bool
    device: Any
    callback: Callback | None


DEFAULTS: SharedArguments = {
    "penalty_operator": None,
    "fit_intercept": True,
    "class_weight": None,
    "tol": 1e-3,
    "max_iter": 1000,
    "warm_start": False,
    "device": None,
    "callback": None,
}


#: As written: the annotations of a typed dictionary are references to come.
HINTS = {n: getattr(h, "__forward_arg__", h) for n, h in SharedArguments.__annotations__.items()}


def whole_doc(own: str, base: str) -> str:
    """Return a class's docstring with the arguments and attributes of its base's.

    The base's come after the class's own, but for the first argument; what the class has itself
    it says in its own words.
    """
    own, base = inspect.cleandoc(own) + "\n", inspect.cleandoc(base) + "\n"
    for section in ("Attributes", "Args"):
        pattern = rf"^{section}:\n((?: {{4}}.*\n)+)\n?"
        said, there = re.search(pattern, own, re.M), re.search(pattern, base, re.M)
        mine, shared = _entries(said), _entries(there)
        first = dict(list(shared.items())[:1]) if section == "Args" else {}
        entries = "".join((first | mine | shared | mine).values())
        if said:
            begin, end = said.span()
        else:  # before the example
            later = re.search(r"^(Example|Source)", own, re.M)
            begin = end = later.start() if later else len(own)
        own = f"{own[:begin]}{section}:\n{entries}\n{own[end:]}"
    return own


def _entries(section: re.Match[str] | None) -> dict[str, str]:
    """Return the entries of a docstring's section by name."""
    entries = re.split(r"^(?= {4}\w)", section[1], flags=re.M)[1:] if section else []
    return {entry.partition(":")[0].strip(): entry for entry in entries}
