"""The DropMax head: a softmax that learns, per example, which classes to drop."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._checks import check_at_least, check_choice, check_count, check_positive
from lastlayer.functional import dropmax as dm
from lastlayer.heads.interface import Draw, full_precision
from lastlayer.heads.linear import apply_linear, apply_linears, new_branch
from lastlayer.heads.retain import CLASS_REDUCTIONS, RetainHead, per_class

POSTERIORS = ("variational", "prior")
ESTIMATORS = ("concrete", "exact", "mean")
PREDICTIONS = ("plug-in", "exact", "monte-carlo")
ENTROPIES = (*dm.ENTROPY_CLASSES, "none")
DETACHES = ("logits", "parameters")
# Below it the eps of the form "iclr" is lost in rounding beside any likely class.
SMALL_EPS = 1e-12


class BranchLogits(NamedTuple):
    """What a head's linear layers say of (N, D) features, (N, K) each."""

    classes: Tensor
    retain: Tensor
    correction: Tensor | None = None


class DropMax(RetainHead):
    r"""Softmax whose classes are retained or dropped at random, learned by variational inference.

    From features come class logits :math:`o`, retain logits :math:`a` (prior
    :math:`\rho = \sigma(a)`) and, while training, correction logits :math:`r` (posterior
    :math:`g = \sigma(\mathrm{sg}[a] + r)`). With the target's mask kept at 1 and the others drawn
    from :math:`g`,

    .. math::
        \ell = -\log p(t \mid x, z) + \mathrm{KL}[q \,\|\, p]
        + \lambda \sum_k \big[\rho_k \log \rho_k + (1 - \rho_k) \log (1 - \rho_k)\big]
        + \sum_k \mathrm{BCE}(\sigma(r_k), y_k)

    The terms of the output are ``"nll"``, ``"kl"``, ``"entropy"`` and ``"auxiliary"`` (the last
    for the variational posterior only). The loss is negative when learned well: watch ``"nll"``.

    Args:
        {arguments}
        posterior: ``"variational"`` (NeurIPS 2018) or ``"prior"`` (q = p: masks are drawn from the
            prior, no correction branch).
        form: ``"neurips"``, :math:`p_y \propto (z_y + \epsilon) e^{o_y}`, or ``"iclr"``,
            :math:`p_y \propto z_y e^{o_y} + \epsilon`.
        entropy: classes whose entropy is kept up: ``"all"``, ``"non-target"`` or ``"none"``.
        entropy_weight: :math:`\lambda \ge 0`.
        kl_weight: weight of the KL term, at least 0; the papers use 1.
        auxiliary_weight: weight of the auxiliary term, at least 0; the paper uses 1.
        class_reduction: ``"sum"`` (the papers) or ``"mean"``: how entropy and auxiliary term, which
            are no part of the bound, are reduced over classes. A sum grows with K beside a
            cross-entropy that does not; a mean keeps their balance.
        temperature: :math:`\tau > 0` of the relaxed masks.
        eps: :math:`\epsilon > 0`.
        estimator: ``"concrete"`` samples relaxed masks; ``"exact"`` takes the expectation of the
            ``"nll"`` term over all hard masks, without noise or temperature; ``"mean"`` puts the
            mask at its mean, an ablation: nothing is drawn, and the bound is lost.
        num_samples: masks per example and step for ``estimator="concrete"``, at least 1.
        prediction: what ``log_prob`` returns by default: ``"plug-in"`` (mask at its mean),
            ``"exact"`` (mean over all :math:`2^K` masks) or ``"monte-carlo"``.
        prediction_samples: masks of the Monte Carlo prediction.
        detach: what the posterior holds constant of the prior: its ``"logits"`` (the released
            code) or only its ``"parameters"`` (the paper's letter), which lets the gradient reach
            the features.

    ``forward`` takes ``noise`` of shape (num_samples, *, K): logistic noise of the masks.

    Raises:
        ValueError: if an option is unknown or out of range.

    Example:
        >>> import torch
        >>> head = DropMax(in_features=16, num_classes=5)
        >>> out = head(torch.randn(4, 16), torch.tensor([0, 1, 2, 3]))
        >>> sorted(out.terms)
        ['auxiliary', 'entropy', 'kl', 'nll']
        >>> head.retain_prob(torch.randn(4, 16)).shape
        torch.Size([4, 5])

    Source: Lee et al., "DropMax: Adaptive Variational Softmax", NeurIPS 2018. Weights of the
    retain and correction branches start Glorot-uniform with zero bias and are not decayed, as in
    the released code.
    """

    stochastic = True
    label_smoothing_refusal = (
        "a dropped class has a log-probability near log eps, which a smoothed target would charge "
        "in every step"
    )
    soft_target_refusal = "the mask of the target class is held at 1, which needs one target class"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        posterior: str = "variational",
        form: str = "neurips",
        entropy: str = "all",
        entropy_weight: float = 1.0,
        kl_weight: float = 1.0,
        auxiliary_weight: float = 1.0,
        class_reduction: str = "sum",
        temperature: float = 0.1,
        eps: float = 1e-20,
        estimator: str = "concrete",
        num_samples: int = 1,
        prediction: str = "plug-in",
        prediction_samples: int = 100,
        detach: str = "logits",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_choice("posterior", posterior, POSTERIORS)
        check_choice("form", form, dm.FORMS)
        check_choice("entropy", entropy, ENTROPIES)
        check_choice("estimator", estimator, ESTIMATORS)
        check_choice("prediction", prediction, PREDICTIONS)
        check_choice("detach", detach, DETACHES)
        check_at_least("entropy_weight", entropy_weight, 0.0)
        check_at_least("kl_weight", kl_weight, 0.0)
        check_at_least("auxiliary_weight", auxiliary_weight, 0.0)
        check_choice("class_reduction", class_reduction, CLASS_REDUCTIONS)
        check_positive("temperature", temperature)
        check_positive("eps", eps)
        check_count("num_samples", num_samples)
        check_count("prediction_samples", prediction_samples)
        self.posterior, self.form, self.entropy = posterior, form, entropy
        self.entropy_weight, self.kl_weight = entropy_weight, kl_weight
        self.auxiliary_weight, self.class_reduction = auxiliary_weight, class_reduction
        self.temperature, self.eps = temperature, eps
        self.estimator, self.num_samples = estimator, num_samples
        self.stochastic = estimator == "concrete"
        self.prediction, self.prediction_samples = prediction, prediction_samples
        self.detach = detach
        self.correction = new_branch(self.classifier) if posterior == "variational" else None

    @classmethod
    def iclr(cls, in_features: int, num_classes: int, **kwargs: Any) -> Self:
        """Build the ICLR 2018 model: q = p, its own eps placement, entropy of non-targets.

        Args:
            in_features: number of features D.
            num_classes: number of classes K.
            **kwargs: further or overriding arguments; the paper searched ``entropy_weight`` in
                {1, 0.1, 0.01, 0.001, 0.0001}.
        """
        preset = {"posterior": "prior", "form": "iclr", "entropy": "non-target"}
        return cls(in_features, num_classes, **(preset | kwargs))

    def branches(self) -> dict[str, nn.Linear]:
        """Return the retain branch and, if there is one, the correction branch."""
        named = super().branches()
        return named if self.correction is None else named | {"correction": self.correction}

    def posterior_prob(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the posterior retain probabilities given the label; 1 at the target.

        Args:
            features: (*, D).
            target: (*) int64 class indices.

        Returns:
            (*, K) in [0, 1].
        """
        self._check_features(features)
        with full_precision(features):
            features = self._upcast(features)
            posterior_logits = apply_linear(self.retain, features)
            if self.correction is not None:
                posterior_logits = posterior_logits + apply_linear(self.correction, features)
            is_target = dm.one_hot_mask(target, self.num_classes)
            return posterior_logits.sigmoid().masked_fill(is_target, 1.0)

    def log_prob(
        self,
        features: Tensor,
        *,
        prediction: str | None = None,
        num_samples: int | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Return class log-probabilities.

        Args:
            features: (*, D).
            prediction: ``"plug-in"``, ``"exact"`` or ``"monte-carlo"``; the head's own if None.
            num_samples: masks of the Monte Carlo prediction; the head's own number if None.
            generator: ``torch.Generator`` of the Monte Carlo masks.
            noise: (S, *, K) logistic noise of the Monte Carlo masks.

        Returns:
            (*, K) log-probabilities.
        """
        prediction = self.prediction if prediction is None else prediction
        check_choice("prediction", prediction, PREDICTIONS)
        self._check_features(features)
        with full_precision(features):
            features = self._upcast(features)
            logits, retain_logits = apply_linears((self.classifier, self.retain), features)
            samples = self.prediction_samples if num_samples is None else num_samples
            return self._predicted(logits, retain_logits, prediction, samples, generator, noise)

    def _predicted(
        self,
        logits: Tensor,
        retain_logits: Tensor,
        prediction: str,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        options: dict[str, Any] = {"form": self.form, "eps": self.eps}
        if prediction == "plug-in":
            return dm.plug_in_log_prob(logits, retain_logits, **options)
        if prediction == "exact":
            return dm.expected_log_prob(logits, retain_logits, **options)
        return dm.monte_carlo_log_prob(
            logits,
            retain_logits,
            num_samples=num_samples,
            generator=generator,
            noise=noise,
            **options,
        )

    @property
    def keeps_softmax(self) -> bool:
        """With the mask at its mean: attached, it starts alike for all classes and cancels.

        In the form ``"iclr"`` a probability near ``eps`` rises to it. The mean over masks keeps the
        order of the classes, but is nearer to uniform.
        """
        cancels = self.form == "neurips" or self.eps < SMALL_EPS
        return self.prediction == "plug-in" and cancels

    def _log_prob(self, features: Tensor) -> Tensor:
        return self.log_prob(features)

    def _held_prior(self, features: Tensor, retain_logits: Tensor) -> Tensor:
        """Return the prior logits inside the posterior: constant as far as ``detach`` says."""
        if self.detach == "logits":
            return retain_logits.detach()
        return apply_linear(self.retain, features, hold=True)

    def _noise_shape(self, leading: tuple[int, ...]) -> tuple[int, ...]:
        return (self.num_samples, *leading, self.num_classes)

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        layers = [x for x in (self.classifier, self.retain, self.correction) if x is not None]
        return self._objective(
            features, BranchLogits(*apply_linears(layers, features)), target, draw
        )

    def _objective(
        self, features: Tensor, logits: BranchLogits, target: Tensor, draw: Draw
    ) -> dict[str, Tensor]:
        if self._in_one_pass:
            return self._one_pass_terms(logits, target, draw)
        class_logits, retain_logits, correction = logits
        terms: dict[str, Tensor] = {}
        if correction is None:
            terms["nll"] = self._nll(class_logits, retain_logits, target, draw)
            terms["kl"] = _weighted(self.kl_weight, dm.target_retention_loss(retain_logits, target))
        else:
            held = self._held_prior(features, retain_logits)
            terms["nll"] = self._nll(class_logits, held + correction, target, draw)
            kl = dm.bernoulli_kl(correction, retain_logits, target, held_prior=held)
            terms["kl"] = _weighted(self.kl_weight, kl)
            terms["auxiliary"] = _weighted(
                self._per_class(self.auxiliary_weight), dm.auxiliary_loss(correction, target)
            )
        if self.entropy != "none":
            entropy = dm.negative_entropy(retain_logits, target, classes=self.entropy)
            terms["entropy"] = _weighted(self._per_class(self.entropy_weight), entropy)
        return terms

    def _per_class(self, weight: float) -> float:
        return per_class(weight, self.num_classes, self.class_reduction)

    @property
    def _in_one_pass(self) -> bool:
        """Whether the objective is the usual one, which has its own fast function."""
        return (
            self.estimator == "concrete"
            and self.num_samples == 1
            and self.form == "neurips"
            and self.entropy != "non-target"
            and self.detach == "logits"
            and self.eps >= dm.SMALLEST_EPS
        )

    def _one_pass_terms(
        self, logits: BranchLogits, target: Tensor, draw: Draw
    ) -> dict[str, Tensor]:
        noise = draw.noise
        if noise is None:
            noise = dm.logistic_noise(logits.classes, generator=draw.generator)
        rows = dm.objective_rows(
            *logits,
            target,
            noise.reshape(logits.classes.shape).to(logits.classes.dtype),
            temperature=self.temperature,
            eps=self.eps,
        )
        terms = {"nll": rows.nll, "kl": _weighted(self.kl_weight, rows.kl)}
        if logits.correction is not None:
            terms["auxiliary"] = _weighted(self._per_class(self.auxiliary_weight), rows.auxiliary)
        if self.entropy != "none":
            terms["entropy"] = _weighted(self._per_class(self.entropy_weight), rows.entropy)
        return terms

    def _nll(self, logits: Tensor, posterior_logits: Tensor, target: Tensor, draw: Draw) -> Tensor:
        if self.estimator == "exact":
            return dm.expected_cross_entropy(
                logits, posterior_logits, target, form=self.form, eps=self.eps
            )
        if self.estimator == "mean":
            log_mask = F.logsigmoid(posterior_logits).unsqueeze(0)
        else:
            log_mask = dm.concrete_log_mask(
                posterior_logits.expand(self.num_samples, *posterior_logits.shape),
                temperature=self.temperature,
                noise=draw.noise,
                generator=draw.generator,
            )
        log_mask = dm.retain_target(log_mask, target)
        log_prob = dm.masked_log_prob(logits, log_mask, form=self.form, eps=self.eps)
        index = target.expand(len(log_mask), -1).unsqueeze(-1)
        return -log_prob.gather(-1, index).squeeze(-1).mean(dim=0)

    def _options(self) -> dict[str, object]:
        return {"posterior": self.posterior, "form": self.form, "estimator": self.estimator}


def _weighted(weight: float, values: Tensor) -> Tensor:
    return values if weight == 1 else weight * values
