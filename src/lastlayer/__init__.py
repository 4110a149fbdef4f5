"""The last layer of classifiers: heads, losses and tools between features and prediction.

``import lastlayer`` loads torch and numpy only; the training engine, plots and the command line
load what they need when they are used.
"""

from lastlayer import functional, heads, losses
from lastlayer.heads import Classifier, Head, HeadOutput, attach

__all__ = [
    "Classifier",
    "Head",
    "HeadOutput",
    "attach",
    "functional",
    "heads",
    "losses",
]
__version__ = "0.1.0"
