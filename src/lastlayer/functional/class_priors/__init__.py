r"""What to do about classes that occur unequally often: one family, and how its members add up.

Notation: n the class counts in training, :math:`\eta` the logits. Data of another class prior but
the same :math:`p(x \mid y)` differ in the posterior by the ratio of the priors alone, so

- ``balanced_softmax`` puts :math:`\tau \log n` into the loss and predicts without it,
- ``adjustment`` takes it out of logits that the cross entropy trained,
- sampling and class weights change the prior that the loss sees (``weights``),
- ``margins`` (LDAM) changes the true class's logit alone, which is another thing.

The first three do the same job: their strengths add up, and ``correction`` keeps the account.
``shifted_loss`` is the one cross entropy behind Balanced Softmax and PC-Softmax; ``counts`` checks.
"""

from lastlayer.functional.class_priors.adjustment import adjust_logits
from lastlayer.functional.class_priors.balanced_softmax import (
    balanced_sigmoid_loss,
    balanced_sigmoid_offsets,
    balanced_softmax_loss,
)
from lastlayer.functional.class_priors.correction import DoubleCorrectionWarning, PriorCorrection
from lastlayer.functional.class_priors.counts import as_class_counts, log_class_counts
from lastlayer.functional.class_priors.margins import ldam_loss, ldam_margins
from lastlayer.functional.class_priors.weights import (
    class_balanced_weight,
    deferred_class_weight,
    effective_number,
)

__all__ = [
    "DoubleCorrectionWarning",
    "PriorCorrection",
    "adjust_logits",
    "as_class_counts",
    "balanced_sigmoid_loss",
    "balanced_sigmoid_offsets",
    "balanced_softmax_loss",
    "class_balanced_weight",
    "deferred_class_weight",
    "effective_number",
    "ldam_loss",
    "ldam_margins",
    "log_class_counts",
]
