"""Training one classifier: configuration in, a run directory out."""

from lastlayer.training.config import RunConfig
from lastlayer.training.fit import train
from lastlayer.training.run_directory import RunDirectory

__all__ = ["RunConfig", "RunDirectory", "train"]
