"""The training set's class counts within a head, and the account of what it corrects by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_probability
from lastlayer.functional.class_priors import PriorCorrection, class_balanced_weight
from lastlayer.heads.base import Head
from lastlayer.heads.interface import NewClasses
from lastlayer.losses.class_counts import Derived, ExactBuffers, stored_counts


class CountedHead(ExactBuffers, Head):
    """A head that keeps the training set's class counts as a buffer, whole numbers as int64."""

    class_counts: Tensor
    zero_counts: str = "error"
    #: Whether ``zero_counts`` is an argument.
    offers_mask: bool = False

    def _keep_counts(self, class_counts: Tensor | Sequence[float] | None) -> None:
        """Register checked class counts as the buffer ``class_counts``."""
        if class_counts is None:
            raise ValueError(
                f"{type(self).__name__} needs class_counts: how often each of the "
                f"{self.num_classes} classes occurs in the training data"
            )
        counts = stored_counts(
            class_counts,
            self.num_classes,
            self.classifier.weight.device,
            zero_counts=self.zero_counts,
            offers_mask=self.offers_mask,
        )
        self.register_buffer("class_counts", counts)

    def _grow_class_state(self, new: NewClasses) -> None:
        super()._grow_class_state(new)
        self._keep_counts(new.class_counts)


class CountWeightedHead(CountedHead):
    """A head whose class weights follow from its class counts, times further ones of the user.

    The weights are no buffer: they are computed from the counts that are there, so that counts
    which are loaded, or written to, bring their weights along.
    """

    weight_buffer = "further_weight"
    further_weight: Tensor | None
    #: Whether the weights by the counts hold now, where that depends on the progress.
    reweighted: Tensor
    beta: float

    def _weigh_by_counts(self, beta: float, *, deferred: bool = False) -> None:
        """From now on let ``weight`` follow from the counts, if ``deferred`` only when told so."""
        check_probability("beta", beta)
        self.beta = beta
        self._weights = Derived()
        like = self.classifier.weight
        if self.further_weight is None:
            self.further_weight = torch.ones(self.num_classes, device=like.device, dtype=like.dtype)
        if deferred:
            self.register_buffer("reweighted", torch.tensor(0, device=like.device))

    @property
    def weight(self) -> Tensor | None:  # type: ignore[override]
        """The (K,) class weights that hold now, or None; computed, so set the counts instead."""
        if self.further_weight is None or "_weights" not in vars(self):
            return self.further_weight
        held = (self.reweighted,) if "reweighted" in self._buffers else ()
        return self._weights(self._weigh, self.class_counts, self.further_weight, *held)

    def _weigh(
        self, class_counts: Tensor, further: Tensor, reweighted: Tensor | None = None
    ) -> Tensor:
        balanced = class_balanced_weight(class_counts, beta=self.beta).to(further.device)
        if reweighted is not None:
            balanced = torch.where(reweighted > 0, balanced, 1.0)
        return balanced * further

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        old = state_dict.pop(prefix + "weight", None)
        if old is not None and prefix + self.weight_buffer not in state_dict:
            self._take_up_product(state_dict, prefix, old)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _take_up_product(self, state_dict: dict[str, Any], prefix: str, product: Tensor) -> None:
        """Take a state of before apart, which held the weights themselves beside the counts."""
        own, further = self.further_weight, product
        if "_weights" in vars(self) and own is not None:
            counts = state_dict.get(prefix + "class_counts", self.class_counts)
            balanced = class_balanced_weight(counts, beta=self.beta).to(product.device)
            if "reweighted" in self._buffers:
                late = _alike(product, balanced * own) and not _alike(product, own)
                state_dict[prefix + "reweighted"] = self.reweighted.new_tensor(int(late))
                further = own if late or _alike(product, own) else product
            else:
                further = own if _alike(product, balanced * own) else product / balanced
        state_dict[prefix + self.weight_buffer] = further


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or not can_look(one, other, wait=True):
        return False
    return torch.allclose(one.double().cpu(), other.double().cpu(), rtol=1e-3)


def prior_correction(
    head: Head, class_counts: Tensor | Sequence[float], sampling_prior: Tensor | None = None
) -> PriorCorrection:
    """Return the account of what a head and the sampling of its batches correct.

    Args:
        head: any head; most correct nothing.
        class_counts: (K,) positive counts of the classes in the training data.
        sampling_prior: (K,) counts or probabilities of the classes as they are drawn; None for
            those of the data.

    Returns:
        The account; it warns if the class prior is corrected twice.

    Example:
        >>> from lastlayer.heads import BalancedSoftmax
        >>> head = BalancedSoftmax(8, 2, class_counts=[90, 10])
        >>> prior_correction(head, [90, 10])
        PriorCorrection(2 classes, loss offset 1.00)
    """
    weight = head.weight if head.weight is None or bool((head.weight > 0).all()) else None
    return PriorCorrection(
        class_counts,
        sampling_prior=sampling_prior,
        class_weight=weight,
        loss_tau=head.loss_tau,
        post_hoc_tau=head.post_hoc_tau,
    )
