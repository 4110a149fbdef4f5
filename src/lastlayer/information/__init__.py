"""What a trained network's features and outputs know about the label."""

from lastlayer.information.features import FeatureReport, HScore, h_score
from lastlayer.information.layers import LayerScores, feature_report

__all__ = ["FeatureReport", "HScore", "LayerScores", "feature_report", "h_score"]
