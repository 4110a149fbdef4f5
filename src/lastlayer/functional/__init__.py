"""The mathematics: pure functions on tensors, explicit about randomness."""

from lastlayer.functional.blocks import disout, drop_block
from lastlayer.functional.class_sampling import (
    class_dropout_loss,
    class_dropout_mask,
    masked_cross_entropy,
    sampled_class_mask,
    sampled_softmax_loss,
)
from lastlayer.functional.dropmax import (
    auxiliary_loss,
    bernoulli_kl,
    bernoulli_log_mask,
    concrete_log_mask,
    logistic_noise,
    masked_log_prob,
    monte_carlo_log_prob,
    negative_entropy,
    plug_in_log_prob,
    retain_target,
    target_retention_loss,
)
from lastlayer.functional.dropmax.exact import expected_cross_entropy, expected_log_prob
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
from lastlayer.functional.meta_gradient import (
    linear_weight_gradient,
    reweighting_rate_gradient,
    sampling_rate_gradient,
)
from lastlayer.functional.meta_sampling import (
    class_log_prob,
    draw_classes,
    draw_examples,
    group_by_class,
    gumbel_noise,
    initial_rate_logits,
    rate_weights,
)

__all__ = [
    "auxiliary_loss",
    "bernoulli_kl",
    "bernoulli_log_mask",
    "class_dropout_loss",
    "class_dropout_mask",
    "class_log_prob",
    "concrete_dropout",
    "concrete_log_mask",
    "cutout",
    "disout",
    "draw_classes",
    "draw_examples",
    "drop_block",
    "entmax",
    "entmax15",
    "entmax15_loss",
    "entmax_loss",
    "expected_cross_entropy",
    "expected_log_prob",
    "gaussian_dropout",
    "group_by_class",
    "gumbel_noise",
    "initial_rate_logits",
    "linear_weight_gradient",
    "log_pc_softmax",
    "logistic_noise",
    "make_fenchel_young_loss",
    "masked_cross_entropy",
    "masked_log_prob",
    "monte_carlo_log_prob",
    "negative_entropy",
    "pc_softmax",
    "pc_softmax_loss",
    "plug_in_log_prob",
    "pointwise_information",
    "post_compensated_log_prob",
    "probability_corrected_log_prob",
    "rate_weights",
    "retain_target",
    "reweighting_rate_gradient",
    "sampled_class_mask",
    "sampled_softmax_loss",
    "sampling_rate_gradient",
    "sparsemax",
    "sparsemax_loss",
    "standout",
    "target_retention_loss",
    "unit_dropout",
    "variational_dropout",
]
