r"""What a classifier's outputs know about the label, in nats.

Notation: inputs x, labels y of K classes with prior :math:`\pi`, logits :math:`n_y(x)`, model
probabilities :math:`q = \mathrm{softmax}(n)`, and :math:`\mathrm{CE} = \mathrm{E}[-\log q_y]`.

One file each: ``pc_softmax`` (the probability-corrected softmax, its loss, pointwise information,
other priors), ``entropy`` (of labels, with bias corrections), ``label_bounds`` (H(Y) - CE and
log K - CE), ``critic_bounds`` (Donsker-Varadhan, NWJ, Barber-Agakov, InfoNCE, MINE), ``stochastic``
(brackets over random draws), ``joint`` (exact quantities of a table). Nothing is clipped: an
estimate may be negative.
"""

from lastlayer.functional.information.critic_bounds import (
    barber_agakov_bound,
    donsker_varadhan_bound,
    info_nce_bound,
    mine_objective,
    nwj_bound,
)
from lastlayer.functional.information.entropy import (
    divergence_from_uniform,
    entropy,
    label_counts,
    label_entropy,
)
from lastlayer.functional.information.joint import (
    chi_square_information,
    conditional_entropy,
    joint_pointwise_information,
    mutual_information,
    plug_in_information,
    plug_in_information_null,
)
from lastlayer.functional.information.label_bounds import (
    BoundEstimate,
    InformationWarning,
    cross_entropy_information,
    log_num_classes_information,
    standard_error,
)
from lastlayer.functional.information.pc_softmax import (
    TRAINED_WITH,
    log_pc_softmax,
    pc_softmax,
    pc_softmax_loss,
    pointwise_information,
    post_compensated_log_prob,
    probability_corrected_log_prob,
)
from lastlayer.functional.information.stochastic import (
    InformationBracket,
    bracket_of_target,
    information_bracket,
)

__all__ = [
    "TRAINED_WITH",
    "BoundEstimate",
    "InformationBracket",
    "InformationWarning",
    "barber_agakov_bound",
    "bracket_of_target",
    "chi_square_information",
    "conditional_entropy",
    "cross_entropy_information",
    "divergence_from_uniform",
    "donsker_varadhan_bound",
    "entropy",
    "info_nce_bound",
    "information_bracket",
    "joint_pointwise_information",
    "label_counts",
    "label_entropy",
    "log_num_classes_information",
    "log_pc_softmax",
    "mine_objective",
    "mutual_information",
    "nwj_bound",
    "pc_softmax",
    "pc_softmax_loss",
    "plug_in_information",
    "plug_in_information_null",
    "pointwise_information",
    "post_compensated_log_prob",
    "probability_corrected_log_prob",
    "standard_error",
]
