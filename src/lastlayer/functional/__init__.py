"""The mathematics: pure functions on tensors, explicit about randomness.

Here stand losses, what goes with them, and the layers of regularizers. The parts of one method have
a module of their own: ``dropmax``, ``meta_sampling``, ``information``, ``dependence``,
``transferability``, ``incremental``, ``class_maps``, ``localization`` and others.
"""

from lastlayer._deprecated import renamed
from lastlayer.functional.blocks import disout, drop_block
from lastlayer.functional.class_priors import (
    DoubleCorrectionWarning,
    PriorCorrection,
    adjust_logits,
    balanced_sigmoid_loss,
    balanced_softmax_loss,
    class_balanced_weight,
    deferred_class_weight,
    ldam_loss,
    ldam_margins,
)
from lastlayer.functional.class_sampling import (
    class_dropout_loss,
    class_dropout_mask,
    masked_cross_entropy,
    sampled_class_mask,
    sampled_softmax_loss,
)
from lastlayer.functional.entmax import entmax, entmax15, sparsemax
from lastlayer.functional.feature_noise import (
    concrete_dropout,
    cutout,
    gaussian_dropout,
    standout,
    unit_dropout,
    variational_dropout,
)
from lastlayer.functional.fenchel_young import (
    entmax15_loss,
    entmax_loss,
    make_fenchel_young_loss,
    sparsemax_loss,
)
from lastlayer.functional.information import (
    log_pc_softmax,
    pc_softmax,
    pc_softmax_loss,
    pointwise_information,
    post_compensated_log_prob,
    probability_corrected_log_prob,
)

__all__ = [
    "DoubleCorrectionWarning",
    "PriorCorrection",
    "adjust_logits",
    "balanced_sigmoid_loss",
    "balanced_softmax_loss",
    "class_balanced_weight",
    "class_dropout_loss",
    "class_dropout_mask",
    "concrete_dropout",
    "cutout",
    "deferred_class_weight",
    "disout",
    "drop_block",
    "entmax",
    "entmax15",
    "entmax15_loss",
    "entmax_loss",
    "gaussian_dropout",
    "ldam_loss",
    "ldam_margins",
    "log_pc_softmax",
    "make_fenchel_young_loss",
    "masked_cross_entropy",
    "pc_softmax",
    "pc_softmax_loss",
    "pointwise_information",
    "post_compensated_log_prob",
    "probability_corrected_log_prob",
    "sampled_class_mask",
    "sampled_softmax_loss",
    "sparsemax",
    "sparsemax_loss",
    "standout",
    "unit_dropout",
    "variational_dropout",
]

_DROPMAX = (
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
    "plug_in_log_prob",
    "retain_target",
    "target_retention_loss",
)
_META_SAMPLING = (
    "class_log_prob",
    "draw_classes",
    "draw_examples",
    "group_by_class",
    "gumbel_noise",
    "initial_rate_logits",
    "rate_weights",
)

__getattr__ = renamed(
    __name__,
    {
        **{name: f"{__name__}.dropmax.{name}" for name in _DROPMAX},
        **{name: f"{__name__}.meta_sampling.{name}" for name in _META_SAMPLING},
    },
)
