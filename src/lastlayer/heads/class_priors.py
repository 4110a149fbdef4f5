"""Heads for classes that occur unequally often: each knows the training set's class counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import can_look, check_at_least, check_probability
from lastlayer.functional.class_priors import (
    PriorCorrection,
    adjust_logits,
    balanced_softmax_loss,
    class_balanced_weight,
)
from lastlayer.functional.information import pc_softmax_loss
from lastlayer.functional.loss_arguments import LossArguments
from lastlayer.heads.base import Head
from lastlayer.heads.interface import Draw, NewClasses, full_precision
from lastlayer.heads.softmax import Softmax
from lastlayer.losses.class_counts import CachedTensor, ExactBuffers, stored_counts


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
        self._weights = CachedTensor()
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


class _PriorHead(CountedHead, Softmax):
    """A softmax head whose predictions are for a uniform prior, or for one that is asked for."""

    needs_target_in_training = True

    def log_prob(
        self, features: Tensor, *, prior: Tensor | Sequence[float] | None = None
    ) -> Tensor:
        """Return class log-probabilities.

        Args:
            features: (*, D).
            prior: (K,) counts or probabilities of the classes where the head is used; None for a
                uniform prior. The head's ``class_counts`` give the posterior of the training data.

        Returns:
            (*, K) log-probabilities.
        """
        self._check_features(features)
        with full_precision(features):
            return self._prior_log_prob(self._upcast(features), prior)

    def _log_prob(self, features: Tensor) -> Tensor:
        return self._prior_log_prob(features, None)

    def _prior_log_prob(self, features: Tensor, prior: Tensor | Sequence[float] | None) -> Tensor:
        raise NotImplementedError


class BalancedSoftmax(_PriorHead):
    r"""Linear layer and Balanced Softmax: trained with the class counts, predicting without.

    .. math:: \ell = -\log \frac{n_y^\tau e^{\eta_y}}{\sum_j n_j^\tau e^{\eta_j}}, \qquad
        p = \mathrm{softmax}(\eta), \quad \eta = W h + b

    ``log_prob`` is the posterior under a uniform prior; ``log_prob(features, prior=...)`` that
    under another one. Training loss and test loss are thus not of the same scale.

    Args:
        {arguments}
        class_counts: (K,) how often each class occurs in the whole training set.
        tau: exponent of the counts, at least 0.
        zero_counts: ``"error"`` refuses a class that never occurs; ``"mask"`` leaves it out of
            the loss and gives it probability 0, for its logit is never trained.

    Attributes:
        class_counts: (K,) buffer of the counts.

    Example:
        >>> head = BalancedSoftmax(in_features=8, num_classes=2, class_counts=[90, 10])
        >>> head(torch.randn(4, 8), torch.tensor([0, 0, 0, 1])).loss.shape
        torch.Size([])
        >>> head.log_prob(torch.randn(4, 8), prior=head.class_counts).shape
        torch.Size([4, 2])

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
    """

    offers_mask = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        class_counts: Tensor | Sequence[float],
        tau: float = 1.0,
        zero_counts: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_at_least("tau", tau, 0.0)
        self.zero_counts, self.loss_tau = zero_counts, float(tau)
        self._keep_counts(class_counts)

    @property
    def keeps_softmax(self) -> bool:
        """Unless ``zero_counts="mask"`` takes classes out."""
        return self.zero_counts == "error" or bool((self.class_counts > 0).all())

    def _prior_log_prob(self, features: Tensor, prior: Tensor | Sequence[float] | None) -> Tensor:
        logits = self._logits(features)
        if self.zero_counts == "mask":
            logits = logits.masked_fill(self.class_counts == 0, -torch.inf)
        if prior is not None:
            logits = adjust_logits(logits, None, target_prior=prior)
        return F.log_softmax(logits, dim=-1)

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        return {"nll": self._distribution_nll(features, target, reduction="none")}

    def _distribution_nll(
        self, features: Tensor, target: Tensor, **arguments: Unpack[LossArguments]
    ) -> Tensor:
        return balanced_softmax_loss(
            self._logits(features),
            target,
            self.class_counts,
            tau=self.loss_tau,
            zero_counts=self.zero_counts,
            **arguments,
        )

    def _options(self) -> dict[str, object]:
        masked = {} if self.zero_counts == "error" else {"zero_counts": self.zero_counts}
        return {"tau": self.loss_tau, **masked}


class PCSoftmax(BalancedSoftmax):
    r"""Balanced Softmax with the loss as a density ratio: minus it bounds the information.

    .. math:: \ell = \log \sum_j \pi_j e^{\eta_j} - \eta_y, \qquad \mathrm{E}\,\ell \ge -I(X; Y)

    The gradient, and so the trained head, is that of :class:`BalancedSoftmax` with ``tau=1``; the
    term ``"nll"`` is lower by the entropy of the labels and normally negative; with weights,
    smoothing or soft targets its value is no information. Every class must occur.

    Args:
        {arguments}
        class_counts: (K,) how often each class occurs in the whole training set.

    Raises:
        TypeError: if it is given ``tau`` or ``zero_counts``, which are BalancedSoftmax's alone.

    Example:
        >>> head = PCSoftmax(in_features=8, num_classes=2, class_counts=[90, 10])
        >>> head(torch.zeros(4, 8), torch.tensor([0, 0, 0, 1])).loss.shape
        torch.Size([])

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688.
    """

    offers_mask = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        class_counts: Tensor | Sequence[float],
        **kwargs: Any,
    ) -> None:
        for name in ("tau", "zero_counts"):
            if name in kwargs:
                raise TypeError(
                    f"PCSoftmax takes no {name}: its density ratio needs the counts as they are, "
                    f"none of them 0; got {name}={kwargs[name]!r}. BalancedSoftmax has the option"
                )
        super().__init__(in_features, num_classes, class_counts=class_counts, **kwargs)

    def _distribution_nll(
        self, features: Tensor, target: Tensor, **arguments: Unpack[LossArguments]
    ) -> Tensor:
        counts = self.class_counts.to(features)
        return pc_softmax_loss(self._logits(features), target, counts / counts.sum(), **arguments)

    def _options(self) -> dict[str, object]:
        return {}


class LogitAdjusted(_PriorHead):
    r"""Softmax cross-entropy whose predictions have the training prior taken out afterwards.

    .. math:: \ell = -\log \mathrm{softmax}_y(\eta), \qquad
        p = \mathrm{softmax}(\eta - \tau \log n)

    Where the features are free and the classifier has a bias without decay, its optimum is that of
    :class:`BalancedSoftmax`; without a bias, with decay or stopped early they differ.

    Args:
        {arguments}
        class_counts: (K,) how often each class occurs in the whole training set; a class that never
            occurs gets probability 0.
        tau: how much is taken out, at least 0.

    Example:
        >>> head = LogitAdjusted(in_features=8, num_classes=2, class_counts=[90, 10])
        >>> head.eval()(torch.randn(4, 8)).shape
        torch.Size([4, 2])

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    """

    zero_counts = "mask"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        class_counts: Tensor | Sequence[float],
        tau: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_at_least("tau", tau, 0.0)
        self._keep_counts(class_counts)
        self.post_hoc_tau = float(tau)

    @property
    def keeps_softmax(self) -> bool:
        """Only where no prior is taken out, as with ``log_prob(features, prior=class_counts)``."""
        return self.post_hoc_tau == 0 or bool((self.class_counts == self.class_counts[0]).all())

    def _prior_log_prob(self, features: Tensor, prior: Tensor | Sequence[float] | None) -> Tensor:
        adjusted = adjust_logits(
            self._logits(features),
            self.class_counts,
            tau=self.post_hoc_tau,
            target_prior=prior,
        )
        return F.log_softmax(adjusted, dim=-1)

    def _options(self) -> dict[str, object]:
        return {"tau": self.post_hoc_tau}


class ClassBalanced(CountWeightedHead, Softmax):
    r"""Softmax cross-entropy weighted by one over the effective number of examples.

    .. math:: \ell = -w_y \log \mathrm{softmax}_y(\eta), \qquad
        w_j \propto \frac{1 - \beta}{1 - \beta^{n_j}}

    Args:
        {arguments}
        class_counts: (K,) how often each class occurs in the whole training set.
        beta: in [0, 1]; 0 is no weighting, 1 is weighting by 1/n.
        weight: (K,) further weights, multiplied with these.

    Attributes:
        weight: (K,) the weights by the counts that are there now, times the further ones.
        further_weight: (K,) buffer of the further weights.

    Example:
        >>> ClassBalanced(8, 2, class_counts=[30, 10], beta=1.0).weight
        tensor([0.5000, 1.5000])

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """

    needs_target_in_training = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        class_counts: Tensor | Sequence[float],
        beta: float = 0.9999,
        weight: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, weight=weight, **kwargs)
        self._keep_counts(class_counts)
        self._weigh_by_counts(beta)

    def _options(self) -> dict[str, object]:
        return {"beta": self.beta}
