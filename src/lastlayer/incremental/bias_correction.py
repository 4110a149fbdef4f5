"""Post-hoc bias correction: a scale and a bias for the logits of every later task."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._checks import (
    check_class_indices,
    check_count,
    check_finite,
    check_floating,
    check_last_dim,
    check_matrix,
)
from lastlayer._inputs import take
from lastlayer.data import Labelled
from lastlayer.functional.numerics import at_least_float32
from lastlayer.longtail import class_counts

MIN_SCALE, MAX_SCALE = 0.05, 20.0


class BiasFit(NamedTuple):
    """What a fit did to the held-out mean cross-entropy, in nats.

    Attributes:
        before: with the newest pair at scale 1 and bias 0.
        after: with the fitted pair; at most ``before``.
    """

    before: float
    after: float


class BiasCorrection(nn.Module):
    r"""Correct the logits of later tasks' classes by one scale and one bias for each task.

    .. math:: \eta_j' = \begin{cases} \eta_j & j \text{ of the first task} \\
        a_t \, \eta_j + b_t & j \text{ of task } t \ge 2 \end{cases}

    After a task is trained, :meth:`add_task` makes room for its pair and :meth:`fit` finds it on
    held-out examples, as many of each class; the pairs of earlier tasks stay. It is a correction of
    logits that the plain cross-entropy trained; a balanced softmax needs none.

    The state holds the sizes of the tasks, so that a module of any number of tasks loads it.

    Example:
        >>> correction = BiasCorrection()
        >>> correction.add_task(2)
        >>> correction.add_task(1)
        >>> logits = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 1.0], [0.0, 0.0, 2.0]])
        >>> fit = correction.fit(logits, torch.tensor([0, 1, 2]))
        >>> fit.after < fit.before
        True
        >>> correction(logits).argmax(-1)
        tensor([0, 1, 2])

    Source: Wu et al., "Large Scale Incremental Learning", CVPR 2019 (BiC).
    """

    sizes: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sizes", torch.empty(0, dtype=torch.int64))
        self.register_buffer("scale", torch.empty(0))
        self.register_buffer("bias", torch.empty(0))

    @property
    def num_classes(self) -> int:
        """Classes of all tasks so far."""
        return int(self.sizes.sum())

    def add_task(self, num_classes: int) -> None:
        """Make room for a task's classes, which follow those so far, uncorrected until a fit.

        Args:
            num_classes: of the task, at least 1.

        Raises:
            ValueError: if ``num_classes`` is not.
        """
        check_count("num_classes", num_classes)
        self.sizes = torch.cat((self.sizes, self.sizes.new_tensor([num_classes])))
        self.scale = torch.cat((self.scale, self.scale.new_ones(1)))
        self.bias = torch.cat((self.bias, self.bias.new_zeros(1)))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the corrected logits.

        Args:
            logits: (*, K) raw logits of all classes so far; half precision is computed in float32.

        Returns:
            (*, K); those of the first task bit for bit.

        Raises:
            TypeError: if ``logits`` is not floating point.
            ValueError: if K is not the number of classes of all tasks.
        """
        check_floating("logits", logits)
        check_last_dim("logits", logits, self.num_classes)
        rows = at_least_float32(logits)
        scale, bias = (
            pair.to(rows).repeat_interleave(self.sizes) for pair in (self.scale, self.bias)
        )
        return rows * scale + bias

    @torch.no_grad()
    def fit(self, logits: Tensor, target: Tensor) -> BiasFit:
        r"""Fit the newest task's pair to held-out examples, by the cross-entropy.

        The problem is convex in scale and bias; L-BFGS solves it in float64, with the scale within
        [0.05, 20]. Without the bound a split without mistakes would have no optimum, and a negative
        scale would turn the task's own order around. If nothing is gained the pair is 1 and 0.

        Args:
            logits: (N, K) raw, uncorrected logits of held-out examples, finite.
            target: (N,) int64 labels in [0, K), of the newest task's classes and of earlier ones,
                as a rule as many of each class.

        Returns:
            The mean cross-entropy of the split before and after.

        Raises:
            TypeError: if a dtype does not fit.
            ValueError: if there is one task only, a shape or a label does not fit, or the split
                has no example of the newest task, or none of the earlier ones.
        """
        if len(self.sizes) < 2:
            raise ValueError(
                f"fit needs two tasks or more, as the first has no pair; got {len(self.sizes)}"
            )
        num_new = int(self.sizes[-1])
        num_old = self.num_classes - num_new
        self._check_split(logits, target, num_old)
        self.scale[-1], self.bias[-1] = 1.0, 0.0
        # The CPU, because float64 is missing on some accelerators.
        corrected = copy.deepcopy(self).cpu()(logits.detach().cpu().double())
        old, new = corrected[:, :num_old], corrected[:, num_old:]
        target = target.cpu()
        before = _loss(old, new, target)
        pair = torch.tensor(_best_pair(old, new, target)).to(self.scale).cpu().double()
        after = _loss(old, new * pair[0] + pair[1], target)
        if not after < before:
            return BiasFit(before, before)
        self.scale[-1], self.bias[-1] = pair[0], pair[1]
        return BiasFit(before, after)

    def _check_split(self, logits: Tensor, target: Tensor, num_old: int) -> None:
        check_matrix("logits", logits)
        check_last_dim("logits", logits, self.num_classes)
        check_finite("logits", logits)
        if target.shape != logits.shape[:1]:
            raise ValueError(
                f"target must have shape ({len(logits)},), one label per row of logits; "
                f"got {tuple(target.shape)}"
            )
        check_class_indices(target.cpu(), self.num_classes)
        num_new_rows = int((target >= num_old).sum())
        if not 0 < num_new_rows < len(target):
            raise ValueError(
                "target must hold examples of the newest task and of earlier ones, or the bias has "
                f"no bound; got {num_new_rows} of {len(target)} of the newest"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Room for as many tasks as the state has.
        for name in ("sizes", "scale", "bias"):
            there, here = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(there, Tensor) and there.dim() == 1:
                setattr(self, name, here.new_empty(there.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Return the sizes of the tasks."""
        return f"sizes={self.sizes.tolist()}"


def hold_out_balanced(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled | None]:
    """Split examples into those to train on and as many of every class to fit a correction on.

    Of the class that has fewest a ``share`` is held out, at least one; a class of a single example
    keeps it for training. None for the held-out part if no class can spare one.

    Example:
        >>> data = Labelled(torch.zeros(12, 1), torch.tensor([0] * 10 + [1] * 2))
        >>> rest, held_out = hold_out_balanced(data, 0.1, seed=0)
        >>> len(rest), held_out.target.tolist()
        (10, [0, 1])
    """
    counts = class_counts(data.target)
    each = max(1, int(share * float(counts[counts > 0].min())))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    target = data.target[order]
    taken = []
    for row in counts.nonzero().flatten().tolist():
        of_class = order[target == row]
        taken.append(of_class[:-1][:each])
    index = torch.cat(taken)
    if not len(index):
        return data, None
    kept = torch.ones(len(data), dtype=torch.bool)
    kept[index] = False
    return (
        Labelled(take(data.inputs, kept), data.target[kept]),
        Labelled(take(data.inputs, index), data.target[index]),
    )


def _best_pair(old: Tensor, new: Tensor, target: Tensor) -> list[float]:
    from scipy.optimize import minimize

    columns = old.shape[1]
    is_new = F.one_hot(target, columns + new.shape[1])[:, columns:]

    def objective(pair: Any) -> tuple[float, list[float]]:
        logits = torch.cat((old, new * float(pair[0]) + float(pair[1])), dim=1)
        residual = (logits.softmax(dim=1)[:, columns:] - is_new) / len(target)
        gradient = [float((residual * new).sum()), float(residual.sum())]
        return float(F.cross_entropy(logits, target)), gradient

    solution = minimize(
        objective,
        [1.0, 0.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[(MIN_SCALE, MAX_SCALE), (None, None)],
        options={"ftol": 0.0, "gtol": 1e-9, "maxiter": 500},
    )
    return [float(value) for value in solution.x]


def _loss(old: Tensor, new: Tensor, target: Tensor) -> float:
    return float(F.cross_entropy(torch.cat((old, new), dim=1), target))
