"""Backbones: networks from inputs to features, found by name in ``BACKBONES``."""

from lastlayer.models.base import BACKBONES, Backbone, build
from lastlayer.models.cifar_resnet import CifarResNet
from lastlayer.models.digits_cnn import DigitsCNN
from lastlayer.models.fc_cnn import FCCNN
from lastlayer.models.gap_cnn import GapCNN
from lastlayer.models.lenet import LeNet
from lastlayer.models.mlp import MLP
from lastlayer.models.torchvision_adapter import TorchvisionResNet
from lastlayer.models.tutorial_cnn import TutorialCNN

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
