"""What a trained network's features and outputs know about the label."""

from lastlayer.information.features import (
    FeatureReport,
    HScore,
    LayerScores,
    feature_report,
    h_score,
)

__all__ = ["FeatureReport", "HScore", "LayerScores", "feature_report", "h_score"]
