"""Softmax over a random part of the classes while training: class dropout, sampled softmax."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_choice, check_count, check_number, check_probability
from lastlayer.functional import dropmax as dm
from lastlayer.functional.class_sampling import (
    class_dropout_mask,
    masked_cross_entropy,
    sampled_class_mask,
)
from lastlayer.heads.base import Head
from lastlayer.heads.interface import Draw, HeadOutput, NewClasses, full_precision, summed
from lastlayer.losses.class_counts import CheckpointedCounts, count_when_trained

PREDICTIONS = ("softmax", "monte-carlo")


class ClassDropout(Head):
    r"""Softmax cross-entropy with every non-target class dropped at random ("Random DropMax").

    .. math:: \ell = -\log \frac{e^{o_t}}{e^{o_t} + \sum_{k \ne t} z_k e^{o_k}}, \qquad
        z_k \sim \mathrm{Bernoulli}(p)

    Args:
        {arguments}
        retain_prob: :math:`p` in (0, 1]; the papers searched 0.2, 0.4 and 0.6.
        prediction: ``"softmax"`` over all classes (equal to the plug-in), or ``"monte-carlo"``:
            the mean over random masks in which every class may drop.
        prediction_samples: masks of the Monte Carlo prediction; the paper names 30 and 100.

    ``forward`` takes ``noise`` of shape (*, K): uniform in [0, 1), a class is kept where it is
    below ``retain_prob``.

    Example:
        >>> head = ClassDropout(in_features=8, num_classes=3, retain_prob=0.4)
        >>> head(torch.randn(2, 8), torch.tensor([0, 1])).loss.shape
        torch.Size([])

    Source: "Random DropMax" of DropMax, ICLR 2018; "class dropout" of NeurIPS 2018.
    """

    stochastic = True
    label_smoothing_refusal = (
        "a dropped class has log-probability -inf, which a smoothed target would charge"
    )
    soft_target_refusal = "the target class is never dropped, which needs one target class"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        retain_prob: float = 0.6,
        prediction: str = "softmax",
        prediction_samples: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_probability("retain_prob", retain_prob)
        if retain_prob == 0:
            raise ValueError("retain_prob must be above 0, else nothing is learned; got 0")
        check_choice("prediction", prediction, PREDICTIONS)
        check_count("prediction_samples", prediction_samples)
        self.retain_prob, self.prediction = retain_prob, prediction
        self.prediction_samples = prediction_samples

    def log_prob(
        self,
        features: Tensor,
        *,
        prediction: str | None = None,
        num_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return class log-probabilities.

        Args:
            features: (*, D).
            prediction: ``"softmax"`` or ``"monte-carlo"``; the head's own if None.
            num_samples: masks of the Monte Carlo prediction; the head's own number if None.
            generator: source of the Monte Carlo masks.

        Returns:
            (*, K) log-probabilities.
        """
        prediction = self.prediction if prediction is None else prediction
        check_choice("prediction", prediction, PREDICTIONS)
        self._check_features(features)
        with full_precision(features):
            logits = self._logits(self._upcast(features))
            if prediction == "softmax" or self.retain_prob == 1:
                return F.log_softmax(logits, dim=-1)
            retain_logit = math.log(self.retain_prob) - math.log1p(-self.retain_prob)
            return dm.monte_carlo_log_prob(
                logits,
                torch.full_like(logits, retain_logit),
                num_samples=self.prediction_samples if num_samples is None else num_samples,
                generator=generator,
            )

    @property
    def keeps_softmax(self) -> bool:
        """Unless it predicts by random masks, which leave the most probable class as it is."""
        return self.prediction == "softmax" or self.retain_prob == 1

    def _log_prob(self, features: Tensor) -> Tensor:
        return self.log_prob(features)

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        mask = class_dropout_mask(
            target,
            self.num_classes,
            self.retain_prob,
            generator=draw.generator,
            noise=draw.noise,
        )
        return {"nll": masked_cross_entropy(self._logits(features), target, mask, reduction="none")}

    def _options(self) -> dict[str, object]:
        return {"retain_prob": self.retain_prob}


PROPOSALS = ("uniform", "learned")


class SampledSoftmax(Head):
    r"""Softmax cross-entropy over the target and sampled negatives; plain softmax at test time.

    .. math:: \ell = -\log \frac{e^{o_t}}{e^{o_t} + \sum_{k \in S} e^{o_k - \log c_k + \log c_t}}

    with :math:`c_k` the expected count of class k among the samples; it cancels for the uniform
    proposal.

    Args:
        {arguments}
        num_samples: negatives per example: a number in [1, K - 1], or a fraction of K in (0, 1),
            rounded, as the paper has it (0.2, 0.4, 0.6).
        proposal: ``"uniform"``, or ``"learned"``: proportional to how often each class was a
            target so far (each class starts at 1), in all processes of a distributed training
            together. Labels are counted when the gradient of their loss is taken, once; inside
            ``torch.func`` nothing is counted.

    ``forward`` takes ``noise`` of shape (*, K), see
    :func:`lastlayer.functional.sampled_class_mask`.

    Example:
        >>> head = SampledSoftmax(in_features=8, num_classes=10, num_samples=0.4)
        >>> head(torch.randn(2, 8), torch.tensor([0, 1])).loss.shape
        torch.Size([])

    Source: Jean et al., ACL 2015; as a baseline of DropMax, ICLR 2018. That paper leaves "learned"
    open; the running label frequency is our reading.
    """

    stochastic = True
    label_smoothing_refusal = (
        "a class that is not sampled has log-probability -inf, which a smoothed target would charge"
    )
    soft_target_refusal = "the target class is always sampled, which needs one target class"

    label_count: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: float = 0.6,
        proposal: str = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_choice("proposal", proposal, PROPOSALS)
        self._asked_samples, self.proposal = num_samples, proposal
        self.num_samples = _negatives(num_samples, num_classes)
        if proposal == "learned":
            # Integers: a float count stops growing, in half precision after 256 labels.
            counts = torch.ones(num_classes, dtype=torch.int64)
            self.register_buffer("label_count", counts.to(self.classifier.weight.device))
            self._proposal = CheckpointedCounts()

    def _grow_class_state(self, new: NewClasses) -> None:
        super()._grow_class_state(new)
        self.num_samples = _negatives(self._asked_samples, self.num_classes)
        if self.proposal == "learned":
            self.label_count = torch.cat([self.label_count, self.label_count.new_ones(new.number)])

    @property
    def keeps_softmax(self) -> bool:
        """Yes: only the training loss is sampled."""
        return True

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        logits = self._logits(features)
        mask, log_expected_count = sampled_class_mask(
            target,
            self.num_classes,
            self.num_samples,
            proposal=self._proposal(self.label_count) if self.proposal == "learned" else None,
            generator=draw.generator,
            noise=draw.noise,
        )
        corrected = logits - log_expected_count
        return {"nll": masked_cross_entropy(corrected, target, mask, reduction="none")}

    def _loss(self, features: Tensor, target: Tensor, draw: Draw) -> HeadOutput:
        output = super()._loss(features, target, draw)  # a target that it refuses is not counted
        if not self.training or self.proposal != "learned":
            return output
        nll = count_when_trained(output.loss, self.label_count, target, self.ignore_index)
        return summed({"nll": nll})

    def _options(self) -> dict[str, object]:
        return {"num_samples": self.num_samples, "proposal": self.proposal}


def _negatives(num_samples: float, num_classes: int) -> int:
    """Return how many negatives ``num_samples`` asks for, a number or a share of the classes."""
    check_number("num_samples", num_samples)
    count = round(num_samples * num_classes) if 0 < num_samples < 1 else num_samples
    negatives = max(num_classes - 1, 0)
    if count != count // 1 or not min(1, negatives) <= count <= max(negatives, 1):
        raise ValueError(
            f"num_samples must be a whole number in [1, {negatives}] or a fraction of "
            f"num_classes={num_classes} that rounds to one; got {num_samples!r}"
        )
    return min(int(count), negatives)
