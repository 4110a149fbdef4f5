"""Networks of torchvision and timm, the smallest of their kind or made small by arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torchvision
from torch import nn

from foreign.networks import NUM_CLASSES, Network, images


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(
        name, weights=None, **({"num_classes": NUM_CLASSES} | options)
    )


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **({"num_classes": NUM_CLASSES} | options))


def _vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        32, 8, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=NUM_CLASSES
    )


def _maxvit() -> nn.Module:
    return torchvision.models.MaxVit(
        (64, 64), 16, 2, [16, 32], [1, 1], 8, 0.1, num_classes=NUM_CLASSES
    )


def _swin() -> nn.Module:
    return torchvision.models.SwinTransformer(
        [4, 4], 16, [1, 2], [2, 4], [4, 4], num_classes=NUM_CLASSES
    )


def _convnext() -> nn.Module:
    block = torchvision.models.convnext.CNBlockConfig
    settings = [block(16, 32, 1), block(32, 64, 2), block(64, None, 1)]
    return torchvision.models.ConvNeXt(settings, layer_scale=1.0, num_classes=NUM_CLASSES)


def _mobilenet_v2() -> nn.Module:
    settings = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]
    return torchvision.models.MobileNetV2(NUM_CLASSES, inverted_residual_setting=settings)


def _mobilenet_v3() -> nn.Module:
    block = torchvision.models.mobilenetv3.InvertedResidualConfig
    settings = [
        block(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        block(16, 3, 48, 24, False, "RE", 2, 1, 1.0),
        block(24, 5, 64, 32, True, "HS", 1, 1, 1.0),
        block(32, 5, 64, 32, True, "HS", 1, 1, 1.0),
    ]
    return torchvision.models.MobileNetV3(settings, 128, num_classes=NUM_CLASSES)


def _efficientnet() -> nn.Module:
    block = torchvision.models.efficientnet.MBConvConfig
    settings = [block(1, 3, 1, 16, 16, 1), block(6, 3, 2, 16, 24, 2), block(6, 5, 2, 24, 40, 2)]
    return torchvision.models.EfficientNet(settings, 0.2, num_classes=NUM_CLASSES)


def _regnet(se_ratio: float | None) -> nn.Module:
    settings = torchvision.models.regnet.BlockParams.from_init_params(
        depth=8, w_0=16, w_a=16.0, w_m=2.0, group_width=8, se_ratio=se_ratio
    )
    return torchvision.models.RegNet(settings, num_classes=NUM_CLASSES)


def _shufflenet() -> nn.Module:
    return torchvision.models.ShuffleNetV2(
        [2, 2, 2], [24, 48, 96, 192, 256], num_classes=NUM_CLASSES
    )


def _narrow(name: str) -> nn.Module:
    """Return VGG or AlexNet with 64 in place of 4096 hidden units."""
    network = torchvision.models.get_model(name, weights=None, num_classes=NUM_CLASSES)
    for index, layer in enumerate(network.classifier):
        if isinstance(layer, nn.Linear):
            sizes = [
                64 if size == 4096 else size for size in (layer.in_features, layer.out_features)
            ]
            network.classifier[index] = nn.Linear(*sizes)
    return network


def _pool_only(network: nn.Module) -> None:
    network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _as_it_is(network: nn.Module) -> None:
    """Leave a network that returns features already."""


def torchvision_networks() -> list[Network]:
    small, plain = images(64), {"init_weights": False}
    dense = {"growth_rate": 8, "block_config": (2, 2, 2, 2)}
    regnet = "trunk_output.*.*"

    def one(name: str, layer: str | None, where: str, **more: Any) -> Network:
        make = more.pop("make", None) or _torchvision(name, **more.pop("options", {}))
        inputs = more.pop("inputs", small)
        return Network(f"torchvision {name}", make, inputs, layer, where, **more)

    return [
        one("resnet18", "fc", "layer3.*"),
        one("vgg11", "classifier.6", "features.[36]", make=lambda: _narrow("vgg11")),
        one("alexnet", "classifier.6", "features.[36]", make=lambda: _narrow("alexnet")),
        one("squeezenet1_1", None, "features.1[012]", headless=(_pool_only, 512)),
        one(
            "densenet",
            "classifier",
            "features.denseblock4.*",
            make=lambda: torchvision.models.DenseNet(num_classes=NUM_CLASSES, **dense),
        ),
        one("inception_v3", "fc", "Mixed_7?", options=plain, inputs=images(299)),
        one("googlenet", "fc", "inception5?", options=plain),
        one("shufflenet_v2", "fc", "stage4.*", make=_shufflenet),
        one("mobilenet_v2", "classifier.1", "features.[2-5]", make=_mobilenet_v2),
        one("mobilenet_v3", "classifier.3", "features.[1-4]", make=_mobilenet_v3),
        one("mnasnet0_5", "classifier.1", "layers.12.*"),
        one("efficientnet", "classifier.1", "features.[23].*", make=_efficientnet),
        one("regnet_x", "fc", regnet, make=lambda: _regnet(None), shortcuts=("proj",)),
        one("regnet_y", "fc", regnet, make=lambda: _regnet(0.25), shortcuts=("proj",)),
        one("convnext", "classifier.2", "features.[135].*", make=_convnext),
        one("vit", "heads.head", "encoder.layers.*", make=_vit, inputs=images(32), axes=(0, -1)),
        one("swin", "head", "features.[13].*", make=_swin, axes=(0, -1)),
        one("maxvit", "classifier.5", "blocks.*.layers.*", make=_maxvit),
    ]


def timm_networks() -> list[Network]:
    tokens: dict[str, Any] = {"axes": (0, -1)}
    short = {"img_size": 64, "depth": 3}
    swin = {"img_size": 56, "depths": (1, 2), "embed_dim": 16, "num_heads": (1, 2)}
    dense = {"growth_rate": 8, "block_config": (2, 2, 2, 2)}
    former = {"depths": (1, 2, 1, 2)}

    def one(name: str, layer: str | None, where: str, size: int = 64, **more: Any) -> Network:
        make = _timm(name, **more.pop("options", {}))
        label = "timm " + more.pop("label", name)
        return Network(label, make, images(size), layer, where, **more)

    return [
        one("resnet18", "fc", "layer3.*"),
        one("seresnet18", "fc", "layer3.*"),
        one("densenet121", "classifier", "features.denseblock4.*", options=dense),
        one("test_nfnet", "head.fc", "stages.2.*"),
        one("regnety_002", "head.fc", "s3.*"),
        one("efficientnet_lite0", "classifier", "blocks.4.*"),
        one("mobilenetv3_small_050", "classifier", "blocks.4.*"),
        one("ghostnet_050", "classifier", "blocks.6.*"),
        one("convnext_atto", "head.fc", "stages.*.blocks.*", options={"depths": (1, 1, 2, 1)}),
        one("poolformer_s12", "head.fc", "stages.2.blocks.*"),
        one("vit_tiny_patch16_224", "head", "blocks.*", options=short, **tokens),
        one("deit_tiny_distilled_patch16_224", "head", "blocks.*", options=short, **tokens),
        one(
            "swin_tiny_patch4_window7_224",
            "head.fc",
            "layers.*.blocks.*",
            56,
            options=swin,
            **tokens,
        ),
        one("levit_128s", "head.linear", "stages.2.blocks.*", 224, **tokens),
        one("efficientformer_l1", "head", "stages.1.blocks.*", 224, options=former),
        one("mixer_s32_224", "head", "blocks.*", 224, **tokens),
        one("test_maxvit", "head.fc", "stages.2.blocks.*", 160),
        one(
            "resnet18",
            None,
            "layer3.*",
            label="resnet18, num_classes=0",
            options={"num_classes": 0},
            headless=(_as_it_is, 512),
        ),
        one(
            "vit_tiny_patch16_224",
            None,
            "blocks.*",
            label="vit_tiny, num_classes=0",
            options=short | {"num_classes": 0},
            headless=(_as_it_is, 192),
            **tokens,
        ),
    ]
