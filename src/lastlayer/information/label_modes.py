"""Modes of dependence: what of a label predictions know best, and what of it features do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lastlayer._checks import check_count, check_labeled_features, check_labels
from lastlayer._text import aligned
from lastlayer.functional import dependence as dp

# Of the sphere in the covariance of a regression, so that it can be solved.
_LEAST_SHRINKAGE = 1e-6


@dataclass(frozen=True)
class LabelModes:
    """Functions of the label, those that a prediction knows best first; printed, a table.

    Attributes:
        correlation: (k,) with the best function of the prediction. The first is the maximal
            correlation (Hirschfeld, Gebelein, Rényi) of prediction and label.
        functions: (K, k) their values for every class: of mean 0 and variance 1 over the examples,
            uncorrelated, 0 for classes without examples.
        of_features: (k,) the same for linear functions of features, found on half of the examples
            and measured on the others; None without features.
        squares: sum of all squared correlations, Pearson's chi-square over N.
        squares_null: its mean over the orders of the labels.
    """

    correlation: Tensor
    functions: Tensor
    of_features: Tensor | None
    squares: float
    squares_null: float

    def ends(self, mode: int, most: int = 3) -> tuple[list[int], list[int]]:
        """Return the classes that a mode tells apart: of values beyond half of the extreme one.

        Args:
            mode: which mode, from 0.
            most: the largest number of classes at either end.
        """
        values = self.functions[:, mode]
        order = values.argsort()
        high = [k for k in order.flip(0).tolist()[:most] if values[k] > values.max() / 2]
        low = [k for k in order.tolist()[:most] if values[k] < values.min() / 2]
        return high, low

    def rows(self, names: Sequence[str] | None = None) -> list[tuple[str, ...]]:
        """Number, both correlations and the classes at both ends of every mode, as text."""
        rows = []
        for mode, correlation in enumerate(self.correlation.tolist()):
            of_features = "–" if self.of_features is None else f"{self.of_features[mode]:.4f}"
            ends = (
                " ".join(str(k) if names is None else names[k] for k in end)
                for end in self.ends(mode)
            )
            rows.append((str(mode + 1), f"{correlation:.4f}", of_features, *ends))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Every number by name, for JSON."""
        of_features = None if self.of_features is None else self.of_features.tolist()
        return {
            "correlation": self.correlation.tolist(),
            "of_features": of_features,
            "functions": self.functions.T.tolist(),
            "squares": self.squares,
            "squares_null": self.squares_null,
        }

    def __str__(self) -> str:
        heading = ("mode", "prediction", "features", "classes", "against")
        note = f"squares sum to {self.squares:.4f}, by chance to {self.squares_null:.4f}"
        return aligned([heading, *self.rows()], [note])


def label_modes(
    prediction: Tensor,
    target: Tensor,
    *,
    features: Tensor | None = None,
    num_classes: int | None = None,
    num_modes: int = 3,
    seed: int = 0,
) -> LabelModes:
    r"""Find the functions of the label that predictions, and features, know best.

    From the table of predicted and true classes by singular values
    (:func:`lastlayer.functional.dependence.dependence_modes`): :math:`\sigma_i` is the correlation
    of :math:`g_i(Y)` with the best function of the prediction. A mode near 1 is a question about
    the label that is always answered right; the classes at its two ends are what it tells apart.
    For features, the same by alternating conditional expectations (ACE) with a linear regression,
    its covariance shrunk as Ledoit and Wolf do: found on a random half of the examples, measured on
    the other.

    Args:
        prediction: (N,) integers, the predicted classes or any labels of the examples.
        target: (N,) true classes in [0, K).
        features: (N, D), finite, N >= 4; None to leave them out.
        num_classes: K; None for the largest label and one.
        num_modes: the largest number of modes.
        seed: of the halves and of where ACE starts.

    Returns:
        The :class:`LabelModes`; as many modes as there are, which may be none.

    Raises:
        TypeError: if labels are no integers, or ``features`` not floating-point.
        ValueError: if a shape, a label or a count does not fit.

    Example:
        >>> prediction = torch.tensor([0, 0, 1, 1, 2, 2, 1, 2])
        >>> modes = label_modes(prediction, torch.tensor([0, 0, 1, 1, 2, 2, 2, 1]))
        >>> modes.correlation, modes.ends(0)
        (tensor([1.0000, 0.3333], dtype=torch.float64), ([0], [1, 2]))

    Source: Huang, Makur, Wornell, Zheng, arXiv 1911.09105; Breiman, Friedman, JASA 80(391), 1985
    (ACE).
    """
    check_count("num_modes", num_modes)
    check_labels("prediction", prediction, len(target))
    prediction, target = prediction.cpu(), target.cpu()
    source = torch.unique(prediction, return_inverse=True)[1]
    joint = dp.joint_table(source, target, num_y=num_classes)
    modes = dp.dependence_modes(joint)
    k = min(num_modes, len(modes.sigma))
    num_seen = [int((joint.sum(dim) > 0).sum()) for dim in (0, 1)]
    of_features = None
    if features is not None:
        of_features = _feature_correlations(features, target, k, seed)
    return LabelModes(
        modes.sigma[:k],
        modes.g[:, :k],
        of_features,
        float(modes.sigma.square().sum()),
        dp.h_score_null(num_seen[1] - 1, num_seen[0], len(target)),
    )


def _feature_correlations(features: Tensor, target: Tensor, num_modes: int, seed: int) -> Tensor:
    """Return the (num_modes,) correlations of ACE on one half of the examples with the other."""
    check_labeled_features(features, target)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(target), generator=generator)
    fit, rest = order[: len(order) // 2], order[len(order) // 2 :]
    rows = features.detach().cpu().double()
    rows = rows - rows[fit].mean(0)
    labels, inverse = torch.unique(target[fit], return_inverse=True)
    found = torch.zeros(num_modes, dtype=torch.float64)
    k = min(num_modes, len(labels) - 1, int(torch.linalg.matrix_rank(rows[fit])))
    if k < 1:
        return found
    regression = _Regression(rows[fit])
    modes = dp.ace_regression(
        lambda g: rows[fit] @ regression.weight(g),
        dp.class_mean_regressor(inverse),
        len(fit),
        k,
        generator=generator,
    )
    of_class = torch.zeros(int(target.max()) + 1, k, dtype=torch.float64)
    of_class[labels[inverse]] = modes.g
    known = rest[torch.isin(target[rest], labels)]
    f, g = rows[known] @ regression.weight(modes.g), of_class[target[known]]
    f, g = f - f.mean(0), g - g.mean(0)
    scale = f.norm(dim=0) * g.norm(dim=0)
    found[:k] = torch.where(scale > 0, (f * g).sum(0) / scale.where(scale > 0, 1.0), 0.0)
    return found


class _Regression:
    """Linear regression on centered rows, with a covariance shrunk toward the sphere."""

    def __init__(self, rows: Tensor) -> None:
        n, width = rows.shape
        alpha = dp.ledoit_wolf_alpha(rows).clamp_min(_LEAST_SHRINKAGE)
        covariance = rows.T @ rows / n
        eye = torch.eye(width).to(rows)
        shrunk = (1.0 - alpha) * covariance + alpha * covariance.trace() / width * eye
        self._rows, self._factor = rows, torch.linalg.cholesky(shrunk)

    def weight(self, responses: Tensor) -> Tensor:
        """Return the (D, k) weights for (n, k) responses."""
        covariance = self._rows.T @ responses / len(self._rows)
        return torch.cholesky_solve(covariance, self._factor)
