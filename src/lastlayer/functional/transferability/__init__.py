"""Which features, or which source model, will serve a new task: scores without training.

``log_me`` and ``trans_rate`` take features and target labels; ``leep`` and ``nce`` what a source
model predicts. The H-scores are in :mod:`lastlayer.functional.dependence`.
"""

from lastlayer.functional.transferability.log_evidence import Evidence, log_evidence, log_me
from lastlayer.functional.transferability.source_labels import leep, nce
from lastlayer.functional.transferability.trans_rate import WEIGHTINGS, trans_rate

__all__ = ["WEIGHTINGS", "Evidence", "leep", "log_evidence", "log_me", "nce", "trans_rate"]
