"""The account of what was done about an unequal class prior, so that nothing is done twice."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import check_at_least, check_class_weight
from lastlayer.functional.class_priors.adjustment import adjust_logits
from lastlayer.functional.class_priors.balanced_softmax import log_prior_shift
from lastlayer.functional.class_priors.counts import as_class_counts

#: By how much corrections of more than one kind may exceed 1 in all before that is told.
TOLERANCE = 0.05


class DoubleCorrectionWarning(UserWarning):
    """Two corrections of the class prior each do what one would have done alone."""


class PriorCorrection:
    r"""What was corrected while training, what the logits still carry, and what is left to do.

    Where examples are drawn with class prior :math:`\rho`, the loss has class weights w and adds
    the log offset :math:`\tau \log n` to the logits, these estimate

    .. math:: \eta_j = \log p_{\text{balanced}}(j \mid x)
        + \underbrace{\log \rho_j + \log w_j - \tau \log n_j}_{\log \text{ of what they carry}}

    Each correction has a strength in multiples of :math:`\log n`, and strengths add up:

    =============================================  ========
    class-balanced sampling, weights 1/n           1
    square-root sampling                           1/2
    loss offset or post-hoc adjustment by tau      tau
    class-balanced weights                         up to 1
    =============================================  ========

    In all 1 is balanced, 0 is the training prior, 2 is its mirror image: Balanced Softmax on
    class-balanced batches, or adjusted once more after training. One correction of another strength
    is a choice; several that exceed 1 together are a mistake, and a warning says so. Margins (LDAM)
    and weight norms are no offsets and not in the account.

    Args:
        class_counts: (K,) positive counts n of the classes in the training data.
        sampling_prior: (K,) counts or probabilities of the classes as they were drawn; None for
            those of the data.
        class_weight: (K,) class weights of the loss, above 0; None for 1.
        loss_tau: exponent of the offset in the loss.
        post_hoc_tau: exponent of an adjustment that predictions already contain.

    Attributes:
        strengths: the strength of each kind of correction that took place, by name.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or number does not fit.

    Warns:
        DoubleCorrectionWarning: if several corrections exceed 1 together.

    Examples:
        >>> plain = PriorCorrection([90, 10])
        >>> plain.carried_prior()
        tensor([0.9000, 0.1000])
        >>> trained = PriorCorrection([90, 10], loss_tau=1.0)
        >>> trained.total, trained.carried_prior().tolist()
        (1.0, [0.5, 0.5])
        >>> trained.adjust(torch.tensor([0.0, 0.0]), target_prior=[3, 1]).softmax(0)
        tensor([0.7500, 0.2500])

    Source: derived from Ren et al., NeurIPS 2020 (over-balance), and Menon et al.,
    ICLR 2021.
    """

    def __init__(
        self,
        class_counts: Tensor | Sequence[float],
        *,
        sampling_prior: Tensor | Sequence[float] | None = None,
        class_weight: Tensor | None = None,
        loss_tau: float = 0.0,
        post_hoc_tau: float = 0.0,
    ) -> None:
        self.class_counts = as_class_counts(class_counts, offers_mask=False).detach().cpu()
        num_classes = len(self.class_counts)
        drawn = class_counts if sampling_prior is None else sampling_prior
        self.sampling_prior = as_class_counts(drawn, num_classes, offers_mask=False).detach().cpu()
        check_class_weight(class_weight, num_classes)
        if class_weight is not None and not bool((class_weight > 0).all()):
            raise ValueError("class_weight must be above 0 for every class")
        self.class_weight = None if class_weight is None else class_weight.detach().cpu()
        check_at_least("loss_tau", loss_tau, 0.0)
        check_at_least("post_hoc_tau", post_hoc_tau, 0.0)
        self.loss_tau, self.post_hoc_tau = loss_tau, post_hoc_tau
        self.strengths = self._strengths()
        self._warn_if_doubled()

    @property
    def total(self) -> float:
        """The strengths' sum: 0 is the training prior, 1 is balanced."""
        return sum(self.strengths.values())

    def carried_prior(self) -> Tensor:
        """Return the (K,) float32 prior that predictions carry; uniform if they are balanced."""
        return self._log_carried().softmax(0).float()

    def adjust(
        self, logits: Tensor, target_prior: Tensor | Sequence[float] | None = None
    ) -> Tensor:
        """Return logits for a uniform or another prior: exactly what is left to correct.

        Args:
            logits: (*, K) logits of the training that this is the account of.
            target_prior: (K,) counts or probabilities where the model is used; None for uniform.
        """
        # Exponentials of differences: only ratios matter, and the largest becomes 1.
        carried = self._log_carried()
        source = (carried - carried.amax(0)).exp()
        return adjust_logits(logits, source, target_prior=target_prior)

    def further(self, post_hoc_tau: float) -> PriorCorrection:
        """Return the account after one more adjustment by tau log n; warns if that is too much."""
        return PriorCorrection(
            self.class_counts,
            sampling_prior=self.sampling_prior,
            class_weight=self.class_weight,
            loss_tau=self.loss_tau,
            post_hoc_tau=self.post_hoc_tau + post_hoc_tau,
        )

    def _log_carried(self) -> Tensor:
        like = torch.zeros((), dtype=torch.float64)
        log_prior = log_prior_shift(self.sampling_prior, like, 1.0)
        if self.class_weight is not None:
            log_prior = log_prior + self.class_weight.double().log()
        return log_prior - log_prior_shift(
            self.class_counts, like, self.loss_tau + self.post_hoc_tau
        )

    def _strengths(self) -> dict[str, float]:
        """Regress what each correction changes on log n."""
        log_n = self.class_counts.double().log()
        centered = log_n - log_n.mean()
        spread = float(centered.square().sum())

        def strength(log_change: Tensor) -> float:
            return 0.0 if spread == 0 else -float((log_change * centered).sum()) / spread

        weight = self.class_weight
        found = {
            "sampling": strength(self.sampling_prior.double().log() - log_n),
            "weights": 0.0 if weight is None else strength(weight.double().log()),
            "loss offset": self.loss_tau,
            "post-hoc adjustment": self.post_hoc_tau,
        }
        return {name: value for name, value in found.items() if abs(value) > 1e-6}

    def _warn_if_doubled(self) -> None:
        at_work = {name: value for name, value in self.strengths.items() if value > TOLERANCE}
        if len(at_work) > 1 and self.total > 1.0 + TOLERANCE:
            listed = " + ".join(f"{name} {value:.2f}" for name, value in at_work.items())
            warnings.warn(
                f"the class prior is corrected more than once: {listed} = {self.total:.2f}, where "
                "1 is balanced; rare classes are favored beyond that",
                DoubleCorrectionWarning,
                stacklevel=3,
            )

    def __repr__(self) -> str:
        listed = ", ".join(f"{name} {value:.2f}" for name, value in self.strengths.items())
        return f"PriorCorrection({len(self.class_counts)} classes, {listed or 'nothing corrected'})"
