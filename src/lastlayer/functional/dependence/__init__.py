"""Dependence of a label on its input, and how much of it features carry.

The canonical dependence matrix of a joint table, its modes by decomposition or by alternating
conditional expectations, H-scores of features (of all at once, shrunk, from batches), H-scores to
train features by, and what softmax regression learns while the dependence is weak.

Throughout, joint tables have rows X and columns Y, and the H-score is the trace without the half.
"""

from lastlayer.functional.dependence.ace import ace, ace_regression, class_mean_regressor
from lastlayer.functional.dependence.h_score import (
    h_score,
    h_score_aic,
    h_score_null,
    h_score_warnings,
)
from lastlayer.functional.dependence.modes import Modes, dependence_modes, maximal_correlation
from lastlayer.functional.dependence.shrinkage import ledoit_wolf_alpha, shrunk_h_score
from lastlayer.functional.dependence.streaming import HScoreSums
from lastlayer.functional.dependence.table import (
    dependence_matrix,
    joint_table,
)
from lastlayer.functional.dependence.two_sided import nested_h_score, two_sided_h_score
from lastlayer.functional.dependence.weak import (
    SoftmaxLayer,
    weak_excess_loss,
    weak_features,
    weak_hidden_weight,
    weak_softmax,
)

__all__ = [
    "HScoreSums",
    "Modes",
    "SoftmaxLayer",
    "ace",
    "ace_regression",
    "class_mean_regressor",
    "dependence_matrix",
    "dependence_modes",
    "h_score",
    "h_score_aic",
    "h_score_null",
    "h_score_warnings",
    "joint_table",
    "ledoit_wolf_alpha",
    "maximal_correlation",
    "nested_h_score",
    "shrunk_h_score",
    "two_sided_h_score",
    "weak_excess_loss",
    "weak_features",
    "weak_hidden_weight",
    "weak_softmax",
]
