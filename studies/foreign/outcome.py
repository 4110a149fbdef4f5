"""What became of one part on one network, and how an exception is read."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import lastlayer

_LIBRARY = str(Path(lastlayer.__file__).parent)

#: What a cell can be, best first.
STATUSES = ("works", "refused", "network cannot", "wrong", "crash", "not asked")


@dataclass(frozen=True)
class Outcome:
    """A cell of the table.

    Attributes:
        status: one of :data:`STATUSES`.
        note: what was seen, or the first line of what was said.
    """

    status: str
    note: str = ""

    def as_dict(self) -> dict[str, str]:
        """Both by name, for JSON."""
        return asdict(self)


class WrongError(Exception):
    """A result that is not what it should be, of which nothing was said."""


def outcome_of(error: Exception) -> Outcome:
    """Tell a result that is wrong, a refusal of the library's own, and a crash apart."""
    lines = str(error).strip().splitlines()
    message = lines[0] if lines else ""
    if isinstance(error, WrongError):
        return Outcome("wrong", message)
    if _is_refusal(error):
        return Outcome("refused", message)
    return Outcome("crash", f"{type(error).__name__}: {message}"[:300])


def _is_refusal(error: Exception) -> bool:
    """Whether a ``raise`` of the library's own said it; not torch inside of it."""
    if not isinstance(error, ValueError | TypeError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(_LIBRARY) and (last.line or "").startswith("raise")


def expect_same(what: str, found: Tensor, wanted: Tensor, bound: float = 1e-3) -> None:
    """Raise :class:`WrongError` unless two results agree but for rounding.

    The networks' logits have a spread of about 1, so an absolute bound says enough.
    """
    if found.shape != wanted.shape:
        raise WrongError(f"{what}: shape {tuple(found.shape)}, not {tuple(wanted.shape)}")
    difference = float((found.double() - wanted.double()).abs().max())
    if not difference <= bound:
        raise WrongError(f"{what}: differs by {difference:.2g}")


def expect_finite(what: str, value: Tensor) -> None:
    """Raise :class:`WrongError` unless every entry is finite."""
    if not bool(torch.isfinite(value).all()):
        raise WrongError(f"{what}: not finite")
