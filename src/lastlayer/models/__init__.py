"""Backbones: networks from inputs to features, found by name in ``BACKBONES``."""

from lastlayer.models.base import BACKBONES, Backbone, build
from lastlayer.models.cifar_resnet import CifarResNet
from lastlayer.models.small_networks import FCCNN, MLP, DigitsCNN, GapCNN, LeNet, TutorialCNN
from lastlayer.models.torchvision_adapter import TorchvisionResNet

__all__ = [
    "BACKBONES",
    "FCCNN",
    "MLP",
    "Backbone",
    "CifarResNet",
    "DigitsCNN",
    "GapCNN",
    "LeNet",
    "TorchvisionResNet",
    "TutorialCNN",
    "build",
]
