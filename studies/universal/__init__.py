"""Experiments of ``universal_features.py``."""
