"""The backbones: sizes, arithmetic, initialization, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal, stats
from torch import nn

from lastlayer.models import BACKBONES, Backbone, LeNet, TutorialCNN, build

MNIST = (1, 28, 28)
SHAPES = {
    "tutorial-cnn": MNIST,
    "lenet": MNIST,
    "mlp": (20,),
    "digits-cnn": (1, 8, 8),
    "fc-cnn": (3, 15, 15),
    "gap-cnn": (3, 8, 8),
    "resnet20": (3, 16, 16),
    "resnet32": (3, 8, 8),
    "resnet56": (3, 8, 8),
    "preact-resnet20": (3, 16, 16),
    "preact-resnet32": (3, 8, 8),
    "preact-resnet56": (3, 8, 8),
}
# Tested in test_torchvision_adapter.py.
NEED_TORCHVISION = {"resnet10", "resnet18", "resnet50", "resnet152"}


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "count"), [("tutorial-cnn", 3_274_634), ("lenet", 431_080)], ids=lambda v: str(v)
)
def test_parameters_with_ten_classes_are_the_published_number(name, count):
    backbone = build(name, MNIST)
    assert parameters(backbone, nn.Linear(backbone.out_features, 10)) == count


def test_digits_cnn_has_33802_parameters_with_ten_classes():
    assert parameters(build("digits-cnn", (1, 8, 8)), nn.Linear(64, 10)) == 33_802


def test_gap_cnn_has_49586_parameters_with_ten_classes():
    assert parameters(build("gap-cnn", (1, 32, 32)), nn.Linear(64, 10)) == 49_586


@torch.no_grad()
def test_gap_cnn_features_are_the_mean_of_its_last_map():
    backbone = build("gap-cnn", (2, 9, 7)).double().eval()
    images = torch.randn(3, 2, 9, 7, dtype=torch.float64)
    last = backbone.layers[: list(dict(backbone.layers.named_children())).index("average")]
    assert last(images).shape == (3, 64, 4, 3)
    assert last(images).min() == 0
    torch.testing.assert_close(backbone(images), last(images).sum((2, 3)) / 12)


def test_gap_cnn_takes_images_of_another_size_but_not_of_other_channels():
    backbone = build("gap-cnn", (2, 8, 8)).eval()
    assert backbone(torch.rand(3, 2, 11, 5)).shape == (3, 64)
    for shape in ((3, 1, 8, 8), (3, 2, 8, 1), (2, 8, 8)):
        with pytest.raises(ValueError, match=r"inputs must have shape \(N, 2, at least 2"):
            backbone(torch.rand(shape))


def test_our_names_are_all_tested():
    assert set(SHAPES) | NEED_TORCHVISION == set(BACKBONES.names())


@pytest.mark.parametrize("name", SHAPES)
def test_every_backbone_gives_out_features_per_example(name):
    backbone = build(name, SHAPES[name])
    assert isinstance(backbone, Backbone)
    assert backbone(torch.rand(3, *SHAPES[name])).shape == (3, backbone.out_features)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tutorial-cnn", (3, 32, 32)),
        ("tutorial-cnn", (2, 9, 7)),
        ("tutorial-cnn", (1, 1, 1)),
        ("lenet", (3, 32, 32)),
        ("lenet", (1, 16, 17)),
        ("digits-cnn", (2, 9, 7)),
        ("digits-cnn", (1, 1, 1)),
        ("mlp", (3, 4, 5)),
        ("fc-cnn", (1, 28, 15)),
        ("gap-cnn", (2, 9, 7)),
        ("gap-cnn", (1, 2, 3)),
        ("resnet20", (1, 8, 8)),
        ("resnet20", (2, 9, 13)),
        ("preact-resnet20", (1, 8, 8)),
        ("preact-resnet20", (2, 9, 13)),
    ],
)
def test_size_and_channels_come_from_input_shape(name, shape):
    backbone = build(name, shape).eval()
    assert backbone(torch.rand(2, *shape)).shape == (2, backbone.out_features)


def pooled(image: np.ndarray) -> np.ndarray:
    """2x2 max pooling with stride 2; an odd edge makes windows of its own (TensorFlow SAME)."""
    rows, columns = (math.ceil(size / 2) for size in image.shape)
    return np.array(
        [
            [image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max() for j in range(columns)]
            for i in range(rows)
        ]
    )


def convolved(images: np.ndarray, conv: nn.Conv2d, mode: str) -> np.ndarray:
    """Cross-correlation channel by channel with SciPy, then ReLU."""
    weight, bias = conv.weight.numpy(), conv.bias.numpy()
    out = [
        sum(
            signal.correlate2d(image, kernel, mode=mode)
            for image, kernel in zip(images, kernels, strict=True)
        )
        + b
        for kernels, b in zip(weight, bias, strict=True)
    ]
    return np.maximum(np.stack(out), 0.0)


@pytest.mark.parametrize(
    ("backbone", "mode"),
    [(TutorialCNN((2, 9, 7)), "same"), (LeNet((2, 16, 20)), "valid")],
    ids=["tutorial-cnn SAME", "lenet VALID"],
)
@torch.no_grad()
def test_features_equal_scipy_arithmetic(backbone, mode):
    backbone = backbone.double().eval()
    image = torch.rand(1, *backbone.input_shape, dtype=torch.float64)
    layers = backbone.layers
    expected = image[0].numpy()
    for conv in (layers.conv1, layers.conv2):
        expected = np.stack([pooled(channel) for channel in convolved(expected, conv, mode)])
    expected = np.maximum(layers.fc.weight.numpy() @ expected.ravel() + layers.fc.bias.numpy(), 0)
    np.testing.assert_allclose(backbone(image)[0].numpy(), expected, rtol=1e-10, atol=1e-12)


def test_tutorial_dropout_acts_in_training_only():
    backbone = TutorialCNN((1, 8, 8), dropout=0.5)
    images = torch.rand(4, 1, 8, 8)
    backbone.eval()
    alive = backbone(images) > 0
    torch.testing.assert_close(backbone(images), backbone(images), rtol=0, atol=0)
    backbone.train()
    dropped = int((backbone(images)[alive] == 0).sum())
    assert stats.binomtest(dropped, int(alive.sum()), 0.5).pvalue > 1e-6


def weights_and_biases(*modules: nn.Module) -> tuple[list[np.ndarray], list[np.ndarray]]:
    layers = [m for root in modules for m in root.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return (
        [layer.weight.detach().double().numpy() for layer in layers],
        [layer.bias.detach().double().numpy() for layer in layers],
    )


def test_tutorial_weights_follow_the_truncated_normal_and_biases_are_a_tenth():
    torch.manual_seed(1)
    backbone = TutorialCNN((1, 8, 8))
    classifier = nn.Linear(1024, 10)
    backbone.init_classifier_(classifier)
    weights, biases = weights_and_biases(backbone, classifier)
    law = stats.truncnorm(-2, 2, scale=0.1)
    for weight in weights:
        assert np.abs(weight).max() <= 0.2 + 1e-7
        assert stats.kstest(weight.ravel()[:20_000], law.cdf).pvalue > 1e-6
    for bias in biases:
        np.testing.assert_array_equal(bias, np.float32(0.1))


def test_the_truncated_normal_test_catches_a_plain_normal():
    torch.manual_seed(1)
    weight = 0.1 * torch.randn(20_000, dtype=torch.float64).numpy()
    assert stats.kstest(weight, stats.truncnorm(-2, 2, scale=0.1).cdf).pvalue < 1e-6


def test_lenet_weights_are_glorot_uniform_and_biases_zero():
    torch.manual_seed(2)
    backbone = LeNet(MNIST)
    classifier = nn.Linear(500, 10)
    backbone.init_classifier_(classifier)
    weights, biases = weights_and_biases(backbone, classifier)
    for weight in weights:
        window = math.prod(weight.shape[2:])
        bound = math.sqrt(6 / (window * (weight.shape[0] + weight.shape[1])))
        law = stats.uniform(-bound, 2 * bound)
        assert np.abs(weight).max() <= bound * (1 + 1e-6)
        assert stats.kstest(weight.ravel()[:20_000], law.cdf).pvalue > 1e-6
    for bias in biases:
        np.testing.assert_array_equal(bias, 0.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {}),
        ("digits-cnn", {}),
        ("tutorial-cnn", {"init": "torch"}),
        ("fc-cnn", {"hidden": (8,)}),
        ("gap-cnn", {}),
        ("resnet20", {}),
        ("preact-resnet20", {}),
    ],
)
def test_others_leave_the_classifier_as_torch_made_it(name, options):
    backbone = build(name, SHAPES[name], options=options)
    classifier = nn.Linear(backbone.out_features, 10)
    before = classifier.weight.clone()
    backbone.init_classifier_(classifier)
    torch.testing.assert_close(classifier.weight, before, rtol=0, atol=0)


def test_classifier_without_bias_is_initialized():
    classifier = nn.Linear(1024, 10, bias=False)
    TutorialCNN((1, 8, 8)).init_classifier_(classifier)
    assert classifier.weight.abs().max() > 1 / math.sqrt(1024)  # beyond torch's own bound


@pytest.mark.parametrize("name", SHAPES)
def test_the_global_seed_fixes_the_weights(name):
    built = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        built.append(torch.cat([p.flatten() for p in build(name, SHAPES[name]).parameters()]))
    assert torch.equal(built[0], built[1])
    assert not torch.equal(built[0], built[2])


@pytest.mark.parametrize("name", sorted(SHAPES.keys() - {"mlp"}))
def test_channels_last_gives_the_same_features(name):
    backbone = build(name, SHAPES[name]).eval()
    images = torch.rand(2, *SHAPES[name])
    expected = backbone(images)
    found = backbone.to(memory_format=torch.channels_last)(
        images.to(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_step_changes_every_parameter():
    for name, shape in SHAPES.items():
        backbone = build(name, shape)
        backbone(torch.rand(8, *shape)).square().sum().backward()
        for parameter_name, parameter in backbone.named_parameters():
            assert parameter.grad.abs().sum() > 0, (name, parameter_name)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("lenet", (1, 8, 8), {}, "at least 16 x 16 pixels; got 8 x 8"),
        ("lenet", (1, 28, 15), {}, "got 28 x 15"),
        ("tutorial-cnn", (5000,), {}, r"input_shape \(channels, height, width\); got \(5000,\)"),
        ("digits-cnn", (0, 8, 8), {}, "at least 1 channel"),
        ("tutorial-cnn", (1, 0, 8), {}, "at least 1 x 1"),
        ("mlp", (), {}, "sizes of at least 1"),
        ("mlp", (3,), {"hidden": ()}, "at least one layer"),
        ("mlp", (3,), {"hidden": (4, 0)}, "each of at least 1"),
        ("mlp", (3,), {"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ("tutorial-cnn", MNIST, {"dropout": -0.1}, "dropout"),
        ("tutorial-cnn", MNIST, {"init": "keras"}, "init must be one of 'tutorial', 'torch'"),
        ("lenet", MNIST, {"dropout": 0.5}, "'lenet' has no option 'dropout'; its options: none"),
        ("mlp", (3,), {"depth": 2}, "no option 'depth'; its options: hidden, dropout"),
        ("resnet20", (3, 7, 32), {}, "at least 8 x 8 pixels; got 7 x 32"),
        ("preact-resnet56", (20,), {}, "takes images"),
        ("resnet20", (3, 8, 8), {"width": 0}, "width must be a whole number of at least 1"),
        ("resnet20", (3, 8, 8), {"depth": 8}, "'resnet20' has no option 'depth'"),
        ("gap-cnn", (3, 1, 8), {}, "at least 2 x 2 pixels; got 1 x 8"),
        ("gap-cnn", (20,), {}, "takes images"),
        ("gap-cnn", (1, 8, 8), {"channels": (4, 4, 4)}, "channels must be four sizes"),
        ("gap-cnn", (1, 8, 8), {"channels": (4, 4, 0, 4)}, "channels must be four sizes"),
        ("fc-cnn", (3, 14, 32), {}, "at least 15 x 15 pixels; got 14 x 32"),
        ("fc-cnn", (3, 32, 32), {"channels": (4, 4)}, "channels must be three sizes"),
        ("fc-cnn", (3, 32, 32), {"channels": (4, 0, 4)}, "channels must be three sizes"),
        ("fc-cnn", (3, 32, 32), {"hidden": ()}, "at least one layer"),
        ("fc-cnn", (3, 32, 32), {"hidden": (4, 0)}, "each of at least 1"),
        ("lenett", MNIST, {}, "Did you mean 'lenet'"),
    ],
)
def test_what_cannot_be_built_is_refused(name, shape, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, shape, options=options)


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"inputs must have shape \(N, 1, 8, 8\); got \(2, 1, 9"):
        build("digits-cnn", (1, 8, 8))(torch.rand(2, 1, 9, 8))


def test_mlp_drops_only_where_asked():
    kinds = [type(layer) for layer in build("mlp", (3,)).layers]
    assert kinds == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]
    assert nn.Dropout in map(type, build("mlp", (3,), options={"dropout": 0.2}).layers)
