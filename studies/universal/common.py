"""What the experiments share: joints, comparisons, rows and panels of their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Found = dict[str, Any]


def legacy_joint(seed: int, rows: int, columns: int) -> Tensor:
    """A uniform random table from NumPy's legacy generator, of sum 1."""
    table = torch.tensor(np.random.RandomState(seed).rand(rows, columns))
    return table / table.sum()


def excess_loss(joint: Tensor, logits: Tensor) -> Tensor:
    """Cross entropy above the conditional entropy of the label."""
    log_posterior = (joint / joint.sum(1, keepdim=True)).log()
    return (joint * (log_posterior - torch.log_softmax(logits, dim=1))).sum()


def centred(values: Tensor, prob: Tensor) -> Tensor:
    return values - prob @ values


def cosine(a: Tensor, b: Tensor, prob: Tensor) -> float:
    """Correlation of two functions, without its sign."""
    a, b = centred(a, prob), centred(b, prob)
    return float((prob @ (a * b)).abs() / ((prob @ a.square()) * (prob @ b.square())).sqrt())


def cosines(functions: Tensor, theory: Tensor, prob: Tensor) -> str:
    columns = zip(functions.T, theory.T, strict=False)  # theory may have more
    return listed(torch.tensor([cosine(a, b, prob) for a, b in columns]))


def relative_error(learned: Tensor, theory: Tensor) -> float:
    return float((learned - theory).norm() / theory.norm())


def row(quantity: str, measured: str, expected: str) -> dict[str, str]:
    return {"quantity": quantity, "measured": measured, "expected": expected}


def span(values: list[float], digits: int = 3) -> str:
    return f"{min(values):.{digits}f}–{max(values):.{digits}f}"


def listed(values: Tensor, digits: int = 4) -> str:
    return " ".join(f"{float(value):.{digits}f}" for value in values)


def panel(
    title: str, learned: Tensor, theory: Tensor, x: Tensor | None = None, label: str = ""
) -> Found:
    """One plot; two-dimensional values are one line per column."""
    where = torch.arange(len(learned)) if x is None else x
    two = [v[:, None] if v.dim() == 1 else v for v in (learned, theory)]
    lines = [v.detach().double().T.tolist() for v in two]
    return {
        "title": title,
        "x": where.tolist(),
        "x_label": label,
        "learned": lines[0],
        "theory": lines[1],
    }


def minimise(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    """LBFGS to the optimum, in place."""
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=1000,
        tolerance_grad=1e-13,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(closure)
