"""The DropMax objective as its papers write it, in float64 probabilities, and fixed noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lastlayer.heads import DropMax, Head


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _objective(
    o, a, r, target, noise, *, tau=0.1, eps=1e-20, form="neurips", entropy="all"
) -> dict[str, np.ndarray]:
    """Every term of the DropMax loss, one value per row.

    Args:
        o, a, r: (N, K) class, retain and correction logits; ``r=None`` is the q = p variant.
        target: (N,) labels.
        noise: (S, N, K) logistic noise.
        tau, eps, form, entropy: as the head has them.
    """
    o, a, noise = (np.asarray(x, dtype=np.float64) for x in (o, a, noise))
    rows, num_classes = np.arange(len(o)), o.shape[-1]
    y = np.eye(num_classes)[np.asarray(target)]
    rho = _sigmoid(a)
    g = rho if r is None else _sigmoid(a + np.asarray(r, dtype=np.float64))
    u = _sigmoid(noise)
    z = _sigmoid((np.log(g / (1 - g)) + np.log(u / (1 - u))) / tau)
    z = np.where(y == 1, 1.0, z)
    weight = (z + eps) * np.exp(o) if form == "neurips" else z * np.exp(o) + eps
    p = weight / weight.sum(-1, keepdims=True)
    per_class = g * np.log(g / rho) + (1 - g) * np.log((1 - g) / (1 - rho))
    negative_entropy = rho * np.log(rho) + (1 - rho) * np.log(1 - rho)
    terms = {
        "nll": -np.log(p[:, rows, target]).mean(0),
        "kl": np.where(y == 1, -np.log(rho), per_class).sum(-1),
        "entropy": (negative_entropy * (1 if entropy == "all" else 1 - y)).sum(-1),
    }
    if r is not None:
        s = _sigmoid(np.asarray(r, dtype=np.float64))
        terms["auxiliary"] = -(y * np.log(s) + (1 - y) * np.log(1 - s)).sum(-1)
    return terms


@pytest.fixture(scope="session")
def objective() -> Callable[..., dict[str, np.ndarray]]:
    return _objective


@pytest.fixture(scope="session")
def draw_noise() -> Callable[..., Tensor | None]:
    """Return a function that draws the noise of a head for features of a shape (*leading, D)."""

    def draw(head: Head, *leading: int, seed: int = 7) -> Tensor | None:
        if not head.stochastic:
            return None
        samples = (head.num_samples,) if isinstance(head, DropMax) else ()
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(
            *samples, *leading, head.num_classes, generator=generator, dtype=torch.float64
        )
        return uniform.logit() if isinstance(head, DropMax) else uniform

    return draw


@pytest.fixture(scope="session")
def free_head() -> Callable[..., DropMax]:
    """Return a function that builds a DropMax head whose logits are free parameters per row.

    With the identity as features and no bias, row i of a branch's output is column i of its
    weight; gradients and optima are then those of o, a and r themselves.
    """

    def build(o: Tensor, a: Tensor, r: Tensor | None, cls: type = DropMax, **options) -> DropMax:
        posterior = "prior" if r is None else "variational"
        head = cls(
            len(o), o.shape[1], bias=False, posterior=posterior, dtype=torch.float64, **options
        )
        with torch.no_grad():
            head.classifier.weight.copy_(o.T)
            head.retain.weight.copy_(a.T)
            if r is not None:
                head.correction.weight.copy_(r.T)
        return head

    return build
