"""Class dropout: the softmax over the target and a random part of the other classes."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_choice, check_count, check_probability
from lastlayer.functional import dropmax as dm
from lastlayer.functional.class_sampling import class_dropout_mask, masked_cross_entropy
from lastlayer.heads.base import Head
from lastlayer.heads.output import Draw
from lastlayer.heads.precision import full_precision

PREDICTIONS = ("softmax", "monte-carlo")


class ClassDropout(Head):
    r"""Softmax cross-entropy with every non-target class dropped at random ("Random DropMax").

    .. math:: \ell = -\log \frac{e^{o_t}}{e^{o_t} + \sum_{k \ne t} z_k e^{o_k}}, \qquad
        z_k \sim \mathrm{Bernoulli}(p)

    Args:
        in_features: number of features D.
        num_classes: number of classes K.
        retain_prob: :math:`p` in (0, 1]; the papers searched 0.2, 0.4 and 0.6.
        prediction: ``"softmax"`` over all classes (equal to the plug-in), or ``"monte-carlo"``:
            the mean over random masks in which every class may drop.
        prediction_samples: masks of the Monte Carlo prediction; the paper names 30 and 100.
        **kwargs: see :class:`lastlayer.heads.Head`. ``label_smoothing`` is refused.

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
            raise ValueError("retain_prob must be above 0, else nothing is learnt; got 0")
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
