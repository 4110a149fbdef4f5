"""Backbones: networks from inputs to features, found by name in ``BACKBONES``."""

from lastlayer.models.base import BACKBONES, Backbone, build
from lastlayer.models.digits_cnn import DigitsCNN
from lastlayer.models.lenet import LeNet
from lastlayer.models.mlp import MLP
from lastlayer.models.tutorial_cnn import TutorialCNN

__all__ = ["BACKBONES", "MLP", "Backbone", "DigitsCNN", "LeNet", "TutorialCNN", "build"]
