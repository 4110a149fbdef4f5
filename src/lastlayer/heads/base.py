"""What every head is: features in; a loss while training, log-probabilities otherwise."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._checks import (
    REDUCTIONS,
    check_at_least,
    check_choice,
    check_class_weight,
    check_count,
    check_floating,
    check_ignore_index,
    check_last_dim,
    check_probability,
)
from lastlayer._docs import filled_in
from lastlayer.functional.loss_arguments import (
    MEANING,
    LossArguments,
    meaning_unless,
    reduce_rows,
    split_ignored,
)
from lastlayer.heads.interface import (
    Draw,
    HeadOutput,
    NewClasses,
    flat_target,
    full_precision,
    summed,
)
from lastlayer.heads.linear import apply_linear

_MEANING = {
    "in_features": "number of features D, at least 1.",
    "num_classes": "number of classes K, at least 1.",
    "bias": "whether the classifier has a bias.",
    "weight": '(K,) class weights of the ``"nll"`` term, whose mean divides by the weights of the'
    " rows; the other terms' mean divides by their number.",
    **{name: MEANING[name] for name in ("ignore_index", "reduction", "label_smoothing")},
    "device": "device of the parameters.",
    "dtype": "dtype of the parameters.",
}


class Head(nn.Module):
    r"""Base of all heads: the last layer of a classifier, with its own loss.

    ``forward(features, target)`` returns :class:`HeadOutput`. ``forward(features)`` returns
    ``log_prob(features)``, so that an evaluated head is an ordinary module for export, compilation
    and visualization; in training mode a head whose loss needs the target refuses to go without.

    A head computes in float32 even under autocast or with half-precision features (float64 stays
    float64), and returns that dtype: its loss meets numbers that half precision cannot hold.

    A subclass gives ``_row_terms`` (one value per row and term) and ``_log_prob`` where it predicts
    otherwise than by the softmax of its logits; where smoothed or soft targets have a meaning also
    ``_distribution_nll``, else it states why they have none; with buffers of one entry per class,
    or options that follow K, also ``_grow_class_state``. The line ``{arguments}`` in its docstring
    becomes what all of these mean.

    Args:
        {arguments}

    Raises:
        TypeError: if ``weight`` is no tensor or ``ignore_index`` no integer.
        ValueError: if an argument is out of its range or not defined for this head.
    """

    #: Why label smoothing is refused, or None where it is defined.
    label_smoothing_refusal: str | None = None
    #: Why (*, K) targets of class probabilities are refused, or None where they are defined.
    soft_target_refusal: str | None = None
    #: Whether training mode without a target is refused.
    needs_target_in_training: bool = True
    #: Whether the training loss draws random numbers.
    stochastic: bool = False
    #: Exponent of the class counts in the training loss, and of those taken out of predictions.
    loss_tau: float = 0.0
    post_hoc_tau: float = 0.0
    #: Buffers and parameters that :func:`lastlayer.heads.grow` leaves as they are although their
    #: first dimension is as long as there are classes.
    not_per_class: tuple[str, ...] = ()
    #: Buffer of the class weights that were given; a subclass may derive ``weight`` from it.
    weight_buffer: str = "weight"
    weight: Tensor | None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._explain()

    @classmethod
    def _explain(cls) -> None:
        """Let the docstring say what the arguments of every head mean."""
        if cls.__doc__ is not None:
            meaning = meaning_unless(cls.label_smoothing_refusal, _MEANING)
            cls.__doc__ = filled_in(cls.__doc__, {"arguments": meaning})

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = True,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("in_features", in_features)
        check_count("num_classes", num_classes)
        check_choice("reduction", reduction, REDUCTIONS)
        check_probability("label_smoothing", label_smoothing)
        check_ignore_index(ignore_index)
        check_class_weight(weight, num_classes, wait=True)
        if label_smoothing and self.label_smoothing_refusal is not None:
            raise ValueError(
                f"label_smoothing={label_smoothing} is not defined for {type(self).__name__}: "
                f"{self.label_smoothing_refusal}"
            )
        self.in_features, self.num_classes = int(in_features), int(num_classes)
        self.ignore_index = int(ignore_index)
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        given = None if weight is None else weight.to(device, dtype)
        self.register_buffer(self.weight_buffer, given)
        self.classifier = nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)

    # -- the contract -----------------------------------------------------------------------------

    def forward(
        self,
        features: Tensor,
        target: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> HeadOutput | Tensor:
        """Return the loss of ``features`` if a target is given, else their log-probabilities.

        Args:
            features: (*, D) floating point.
            target: (*) int64 class indices, or (*, K) class probabilities where the head's loss
                defines them.
            generator: source of a stochastic head's draws; the default generator if None.
            noise: the draws themselves, in the layout that the head's class states.

        Returns:
            :class:`HeadOutput`, or (*, K) log-probabilities without a target.

        Raises:
            ValueError: if a shape or label does not fit, or the target is missing in training.
            TypeError: if a dtype does not fit.
            RuntimeError: if ``torch.utils.checkpoint`` runs a head again that drew by a generator
                of its own, for it would draw other numbers.
        """
        if target is None:
            if self.training and self.needs_target_in_training:
                raise ValueError(
                    f"{type(self).__name__} needs the target in training mode; call "
                    "head(features, target), or head.eval() before head(features)"
                )
            return self.log_prob(features)
        self._check_features(features)
        if noise is not None:
            noise = self._flat_noise(noise, tuple(features.shape[:-1]))
        with full_precision(features):
            return self._loss(self._upcast(features), target, Draw(generator, noise))

    def log_prob(self, features: Tensor) -> Tensor:
        """Return the (*, K) class log-probabilities of (*, D) features."""
        self._check_features(features)
        with full_precision(features):
            return self._log_prob(self._upcast(features))

    def logits(self, features: Tensor) -> Tensor:
        """Return the (*, K) outputs of the classifier alone, for (*, D) features.

        What a loss or a prediction adds to them (offsets, masks, margins) is left out; those of a
        cosine classifier are scaled cosines.
        """
        self._check_features(features)
        with full_precision(features):
            return self._logits(self._upcast(features))

    def _log_prob(self, features: Tensor) -> Tensor:
        """Return (*, K) log-probabilities of checked features in full precision: the softmax's."""
        return F.log_softmax(self._logits(features), dim=-1)

    @abstractmethod
    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Return every term of the loss per row, (N,) each, from (N, D) features."""

    # -- what follows from it ---------------------------------------------------------------------

    def predict(self, features: Tensor) -> Tensor:
        """Return the (*) int64 most probable classes of (*, D) features."""
        return self.log_prob(features).argmax(dim=-1)

    def scores(self, features: Tensor) -> Tensor:
        """Return (*, K) scores for temperature scaling: ``softmax(scores / T)`` is calibrated.

        They are the log-probabilities, except for heads that give some classes probability zero:
        no temperature revives those, so such a head returns its logits.
        """
        return self.log_prob(features)

    @property
    def keeps_softmax(self) -> bool:
        """Whether the head predicts like the softmax layer that :func:`attach` starts it from."""
        return False

    def _start_as_softmax(self) -> None:
        """Set what takes part in predictions besides ``classifier`` to where it changes nothing.

        :func:`lastlayer.attach` calls it when ``classifier`` has the weights of a softmax layer.
        The branches must learn from there: their gradients are not 0.
        """

    def branches(self) -> dict[str, nn.Linear]:
        """Return the head's linear layers besides ``classifier`` (retain, posterior) by name."""
        return {}

    def param_groups(self, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Return optimizer groups: the branches besides ``classifier`` are not decayed.

        Args:
            weight_decay: decay of the classifier's parameters, at least 0.

        Returns:
            One group, or two where there are branches.
        """
        check_at_least("weight_decay", weight_decay, 0.0)
        branches = self.branches().values()
        undecayed = {id(p): p for linear in branches for p in linear.parameters()}  # tied ones once
        decayed = [p for p in self.parameters() if id(p) not in undecayed]
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": weight_decay}]
        if undecayed:
            groups.append({"params": list(undecayed.values()), "weight_decay": 0.0})
        return groups

    def extra_repr(self) -> str:
        """Return the arguments that differ between heads."""
        parts = [f"in_features={self.in_features}", f"num_classes={self.num_classes}"]
        parts += [f"{name}={value!r}" for name, value in self._options().items()]
        if self.label_smoothing:
            parts.append(f"label_smoothing={self.label_smoothing}")
        if self.reduction != "mean":
            parts.append(f"reduction={self.reduction!r}")
        return ", ".join(parts)

    def _options(self) -> dict[str, object]:
        """Return the head's own options, for ``repr``."""
        return {}

    def _loss(self, features: Tensor, target: Tensor, draw: Draw) -> HeadOutput:
        flat = flat_target(
            target,
            features,
            self.num_classes,
            head=type(self).__name__,
            soft_refusal=self.soft_target_refusal,
        )
        rows = features.reshape(-1, self.in_features)
        if target.is_floating_point() or self.label_smoothing:
            # Weights, smoothing and soft targets are entangled: the loss itself knows how.
            nll = self._distribution_nll(
                rows,
                flat,
                weight=self.weight,
                ignore_index=self.ignore_index,
                reduction=self.reduction,
                label_smoothing=self.label_smoothing,
            )
            terms = {"nll": nll}
        else:
            safe, keep = split_ignored(flat, self.num_classes, self.ignore_index)
            row_weight = None if self.weight is None else self.weight.to(features.dtype)[safe]
            terms = {
                name: reduce_rows(
                    values,
                    keep=keep,
                    row_weight=row_weight if name == "nll" else None,
                    reduction=self.reduction,
                )
                for name, values in self._row_terms(rows, safe, draw).items()
            }
        if self.reduction == "none":
            terms = {name: values.reshape(features.shape[:-1]) for name, values in terms.items()}
        return summed(terms)

    def _distribution_nll(
        self, features: Tensor, target: Tensor, **arguments: Unpack[LossArguments]
    ) -> Tensor:
        """Return the loss of (N, D) features for smoothed or (N, K) soft targets.

        Heads that define one override it; ``arguments`` are those of
        ``torch.nn.functional.cross_entropy``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss for soft targets")

    def _noise_shape(self, leading: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the ``noise`` of features of shape ``(*leading, D)``."""
        return (*leading, self.num_classes)

    def _grow_class_state(self, new: NewClasses) -> None:
        """Bring to a new number of classes what depends on it besides the linear layers.

        :func:`lastlayer.heads.grow` calls it when ``num_classes`` is the new number already and the
        layers are still old; what it raises undoes the growth. Overriding methods call this too.
        """
        given = self._buffers[self.weight_buffer]
        if given is not None:
            setattr(self, self.weight_buffer, new.appended(given))
        elif new.weight is not None:
            raise ValueError(f"{type(self).__name__} has no class weights; got some of new classes")

    def _flat_noise(self, noise: Tensor, leading: tuple[int, ...]) -> Tensor:
        if not self.stochastic:
            raise ValueError(f"{type(self).__name__} draws nothing; got noise")
        expected = self._noise_shape(leading)
        if tuple(noise.shape) != expected:
            raise ValueError(f"noise must have shape {expected}; got {tuple(noise.shape)}")
        return noise.reshape(self._noise_shape((math.prod(leading),)))

    def _check_features(self, features: Tensor) -> None:
        check_floating("features", features)
        check_last_dim("features", features, self.in_features)

    def _upcast(self, features: Tensor) -> Tensor:
        return features if features.dtype == torch.float64 else features.float()

    def _logits(self, features: Tensor) -> Tensor:
        return apply_linear(self.classifier, features)


Head._explain()
