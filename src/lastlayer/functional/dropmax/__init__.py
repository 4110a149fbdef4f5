r"""DropMax: a softmax whose classes are kept or dropped at random, as pure functions.

Notation of this module, all tensors of shape (\*, K):

- ``logits`` :math:`o`, the class logits;
- ``retain_logits`` :math:`a`, with retain probability :math:`\rho = \sigma(a)`;
- ``correction_logits`` :math:`r`, which turn the prior into the posterior
  :math:`g = \sigma(a + r)`;
- ``log_mask`` :math:`\log z`, with :math:`z \in [0, 1]`.

Everything stays in the log domain, so that no probability is ever clamped. Half-precision inputs
are computed, and returned, in float32.

One file each: ``masks``, ``probability``, ``terms``, ``objective`` (all terms in one pass),
``exact`` (the average over all 2^K masks: an expectation over a ``bernoulli_sum``, by a
``trapezoid`` rule).

Sources: Lee et al., "DropMax: Adaptive Variational Softmax", NeurIPS 2018 (form ``"neurips"``), and
its predecessor "DropMax: Adaptive Stochastic Softmax", ICLR 2018 submission (form ``"iclr"``).
"""

from lastlayer.functional.dropmax.exact import expected_cross_entropy, expected_log_prob
from lastlayer.functional.dropmax.masks import (
    bernoulli_log_mask,
    concrete_log_mask,
    logistic_noise,
    one_hot_mask,
    retain_target,
    surviving_rivals,
)
from lastlayer.functional.dropmax.objective import SMALLEST_EPS, objective_rows
from lastlayer.functional.dropmax.probability import (
    FORMS,
    masked_log_prob,
    monte_carlo_log_prob,
    plug_in_log_prob,
)
from lastlayer.functional.dropmax.terms import (
    ENTROPY_CLASSES,
    NON_TARGET_FIXED_POINT,
    POSTERIOR_FIXED_POINT,
    TARGET_FIXED_POINT,
    auxiliary_loss,
    bernoulli_kl,
    negative_entropy,
    target_retention_loss,
)

__all__ = [
    "ENTROPY_CLASSES",
    "FORMS",
    "NON_TARGET_FIXED_POINT",
    "POSTERIOR_FIXED_POINT",
    "SMALLEST_EPS",
    "TARGET_FIXED_POINT",
    "auxiliary_loss",
    "bernoulli_kl",
    "bernoulli_log_mask",
    "concrete_log_mask",
    "expected_cross_entropy",
    "expected_log_prob",
    "logistic_noise",
    "masked_log_prob",
    "monte_carlo_log_prob",
    "negative_entropy",
    "objective_rows",
    "one_hot_mask",
    "plug_in_log_prob",
    "retain_target",
    "surviving_rivals",
    "target_retention_loss",
]
