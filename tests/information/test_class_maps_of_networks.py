"""ClassMaps on many networks: which ends are found, which refused, and what the maps then are."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from counted_heads import build_head
from torch import nn
from torch.nn.utils import prune

import lastlayer
from lastlayer.functional.class_maps import class_map, least_likely_class, logit_contrast
from lastlayer.heads import HEADS
from lastlayer.information import ClassMaps
from lastlayer.information.readout import read_out
from lastlayer.models import GapCNN, build

CLASSES = 5
CHANNELS = 6


def trunk(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, CHANNELS, 3, padding=1),
    )


class Network(nn.Module):
    """A trunk, and an end that is a line of code."""

    def __init__(self, end, **parts):
        super().__init__()
        self.trunk = trunk()
        self.fc = nn.Linear(CHANNELS, CLASSES)
        for name, part in parts.items():
            self.add_module(name, part)
        self.end = end

    def forward(self, images):
        return self.end(self, self.trunk(images))


def squeeze_excite(net, x):
    gate = net.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
    return net.fc((x * gate).mean((2, 3)))


ENDS = {
    "module": (
        lambda net, x: net.fc(net.pool(x).flatten(1)),
        {"pool": nn.AdaptiveAvgPool2d(1)},
    ),
    "average of a fixed size": (lambda net, x: net.fc(F.avg_pool2d(x, (4, 3)).flatten(1)), {}),
    "mean over dimensions": (lambda net, x: net.fc(x.mean((2, 3))), {}),
    "negative dimensions": (lambda net, x: net.fc(torch.mean(x, dim=[-2, -1])), {}),
    "functional": (lambda net, x: net.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)), {}),
    "functional after a functional ReLU": (lambda net, x: net.fc(F.relu(x).mean((2, 3))), {}),
    "ReLU in place": (lambda net, x: net.fc(F.relu_(x).mean((2, 3))), {}),
    "flattened cells": (lambda net, x: net.fc(x.flatten(2).mean(2)), {}),
    "dropout": (
        lambda net, x: net.fc(net.dropout(x.mean((2, 3)))),
        {"dropout": nn.Dropout(0.5)},
    ),
    "without bias": (
        lambda net, x: net.free(x.mean((2, 3))),
        {"free": nn.Linear(CHANNELS, CLASSES, bias=False)},
    ),
    "log-softmax": (lambda net, x: net.fc(x.mean((2, 3))).log_softmax(1), {}),
    "softmax": (lambda net, x: net.fc(x.mean((2, 3))).softmax(1), {}),
    "1x1 convolution after pooling": (
        lambda net, x: net.conv(F.adaptive_avg_pool2d(x, 1)).flatten(1),
        {"conv": nn.Conv2d(CHANNELS, CLASSES, 1)},
    ),
    "1x1 convolution before pooling": (
        lambda net, x: net.conv(x).mean((2, 3)),
        {"conv": nn.Conv2d(CHANNELS, CLASSES, 1)},
    ),
    "1x1 convolution that stays a map": (
        lambda net, x: F.adaptive_avg_pool2d(net.conv(x), 1),
        {"conv": nn.Conv2d(CHANNELS, CLASSES, 1, padding="same")},
    ),
    "squeeze and excitation": (squeeze_excite, {"gate": nn.Conv2d(CHANNELS, CHANNELS, 1)}),
    "object with logits": (
        lambda net, x: type("Output", (), {"logits": net.fc(x.mean((2, 3)))})(),
        {},
    ),
    "keyword operand": (
        lambda net, x: F.linear(
            input=torch.mean(input=x, dim=(2, 3)), weight=net.fc.weight, bias=net.fc.bias
        ),
        {},
    ),
}


def images(n=3, dtype=torch.float32):
    return torch.randn(n, 2, 8, 6, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("end", ENDS)
def test_every_way_to_average_is_found(end):
    function, parts = ENDS[end]
    network = Network(function, **parts).double()
    batch = images(dtype=torch.float64)
    readout = read_out(network, batch)
    assert readout.features.shape == (3, CHANNELS, 4, 3)
    for method in ("cam", "infocam", "infocam+"):
        out = ClassMaps(network, method=method)(batch)
        own = readout.logits[torch.arange(3), out.target]
        bias = torch.zeros(CLASSES).double() if readout.bias is None else readout.bias
        own_bias, lowest = bias[out.target], readout.logits.argmin(1)
        expected = {
            "cam": own - own_bias,
            "infocam": logit_contrast(readout.logits - bias)[torch.arange(3), out.target],
            "infocam+": own - own_bias - readout.logits.amin(1) + bias[lowest],
        }[method]
        torch.testing.assert_close(out.maps.mean((1, 2)), expected)
        assert torch.equal(out.target, readout.logits.argmax(1))


def flatten_network():
    return nn.Sequential(trunk(), nn.Flatten(), nn.Linear(CHANNELS * 12, CLASSES))


REFUSED = {
    "max pooling": (
        lambda: Network(lambda net, x: net.fc(F.adaptive_max_pool2d(x, 1).flatten(1))),
        r"linear layer 'fc' \(5 x 6\) is given the last map \(3, 6, 4, 3\) as the maximum",
    ),
    "max pooling module": (
        lambda: nn.Sequential(
            trunk(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CLASSES)
        ),
        r"linear layer '3' .* as the maximum over its cells \(max pooling\)",
    ),
    "amax": (lambda: Network(lambda net, x: net.fc(x.amax((2, 3)))), "max pooling"),
    "flatten": (flatten_network, r"'2' \(5 x 72\) is given .* as all its cells, flattened"),
    "two linear layers": (
        lambda: Network(
            lambda net, x: net.second(net.fc(x.mean((2, 3))).relu()), second=nn.Linear(5, 5)
        ),
        r"linear layer 'second' .*\(3, 5\), is not the mean of the last map",
    ),
    "normalization between": (
        lambda: Network(lambda net, x: net.fc(F.normalize(x.mean((2, 3))))),
        "is not the mean of the last map",
    ),
    "more after the layer": (
        lambda: Network(lambda net, x: 2.0 * net.fc(x.mean((2, 3)))),
        "as its mean, but the output is more than that layer's result",
    ),
    "ReLU after a convolution": (
        lambda: Network(
            lambda net, x: net.conv(x).relu().mean((2, 3)), conv=nn.Conv2d(CHANNELS, CLASSES, 1)
        ),
        "is a convolution of the map .* but the output is not the mean",
    ),
    "no map": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, CLASSES)),
        r"given the last map \(3, 2, 8, 6\) as all its cells, flattened",
    ),
    "no linear layer": (
        lambda: nn.Sequential(nn.Conv2d(2, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "Sequential calls no linear layer and no 1x1 convolution",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_average_and_linear_layer_is_refused_by_name(case):
    make, message = REFUSED[case]
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message) as caught:
        ClassMaps(make())(images())
    assert "average pooling and one linear layer" in str(caught.value)


def test_vectors_have_no_map():
    with pytest.raises(ValueError, match=r"no map .* was seen"):
        ClassMaps(nn.Linear(4, 3))(torch.randn(2, 4))


def test_max_pooling_to_one_cell_is_refused_and_a_convolution_to_one_cell_accepted():
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.MaxPool2d((8, 6)), nn.Flatten(), nn.Linear(2, CLASSES))
    with pytest.raises(ValueError, match="max pooling"):
        ClassMaps(pooled)(images())
    tail = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, CLASSES))
    convolved = nn.Sequential(nn.Conv2d(2, 7, (8, 6)), *tail)
    out = ClassMaps(convolved)(images())
    assert out.maps.shape == (3, 1, 1)
    contrast = logit_contrast(out.logits - convolved[-1].bias)
    torch.testing.assert_close(out.maps[:, 0, 0], contrast[torch.arange(3), out.target])


def test_images_of_one_pixel_have_maps_of_one_cell():
    network = nn.Sequential(
        nn.Conv2d(2, 7, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 3)
    )
    assert ClassMaps(network)(torch.randn(4, 2, 1, 1)).maps.shape == (4, 1, 1)


@pytest.mark.parametrize("head", HEADS.names())
def test_any_head_is_mapped_by_its_classifier(head):
    torch.manual_seed(0)
    backbone = GapCNN((2, 8, 6), channels=(3, 4, 5, 6))
    model = lastlayer.Classifier(backbone, build_head(head, 6, CLASSES, bias=True))
    batch = images()
    for method in ("cam", "infocam", "infocam+"):
        out = ClassMaps(model, method=method)(batch)
        model.eval()
        features = backbone.layers[:-2](batch)
        linear = model.head.classifier
        logits = features.mean((2, 3)) @ linear.weight.T + linear.bias
        torch.testing.assert_close(out.logits, logits)
        assert torch.equal(out.target, model(batch).argmax(1))
        reference = least_likely_class(logits) if method == "infocam+" else None
        expected = class_map(
            features, linear.weight, out.target, method=method, reference=reference
        )
        torch.testing.assert_close(out.maps, expected)


def test_an_attached_head_is_mapped_like_the_layer_it_replaced():
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    before = ClassMaps(network)(images())
    attached = lastlayer.attach(network, "dropmax", layer="fc")
    after = ClassMaps(attached)(images(), before.target)
    torch.testing.assert_close(after.maps, before.maps)
    torch.testing.assert_close(after.logits, before.logits)


def pooled_classifier():
    torch.manual_seed(0)
    backbone = GapCNN((2, 8, 6), channels=(3, 4, 5, 6))
    return lastlayer.Classifier(backbone, build_head("softmax", 6, CLASSES)).eval()


class Adapted(nn.Linear):
    """Adds to its product, as low-rank adapters do."""

    def forward(self, features):
        return super().forward(features) + features.sum(-1, keepdim=True)


def test_a_classifier_whose_weights_do_not_tell_its_output_is_refused():
    model = pooled_classifier()
    model.head.classifier = Adapted(6, CLASSES)
    with pytest.raises(TypeError, match=r"got Adapted, which computes its output in its own way"):
        ClassMaps(model)(images())
    model = pooled_classifier()
    model.head.classifier.register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(
        ValueError, match=r"hooks of head.classifier \(<lambda>\) change its output"
    ):
        ClassMaps(model)(images())


def test_hooks_that_look_on_and_pruned_weights_are_mapped():
    model, batch = pooled_classifier(), images()
    model.head.classifier.register_forward_hook(lambda module, args, out: None)
    prune.l1_unstructured(model.head.classifier, "weight", 0.5)
    with torch.no_grad():
        model.head.classifier.weight_orig.mul_(2)  # as a step of an optimizer would
    weight = model.head.classifier.weight_orig * model.head.classifier.weight_mask
    features = model.backbone.layers[:-2](batch)
    out = ClassMaps(model, method="cam")(batch)
    torch.testing.assert_close(out.maps, class_map(features, weight, out.target, method="cam"))


@pytest.mark.filterwarnings("ignore")  # torch.ao has been deprecated for years
def test_a_quantized_classifier_is_mapped_by_its_weights():
    model, batch = pooled_classifier(), images()
    torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, inplace=True)
    weight = model.head.classifier.weight().dequantize()
    features = model.backbone.layers[:-2](batch)
    out = ClassMaps(model, method="cam")(batch)
    torch.testing.assert_close(out.maps, class_map(features, weight, out.target, method="cam"))


def test_a_backbone_that_does_not_average_is_refused():
    model = lastlayer.Classifier(build("digits-cnn", (1, 8, 8)), build_head("softmax", 64, 10))
    with pytest.raises(ValueError, match=r"what the head is given, .* is not the mean of the last"):
        ClassMaps(model)(torch.rand(2, 1, 8, 8))


def test_a_row_added_to_all_weights_moves_cam_and_neither_infocam():
    network = Network(lambda net, x: net.fc(x.mean((2, 3)))).double()
    batch = images(dtype=torch.float64)
    methods = ("cam", "infocam", "infocam+")
    before = {method: ClassMaps(network, method=method)(batch).maps for method in methods}
    with torch.no_grad():
        network.fc.weight.add_(torch.randn(CHANNELS, dtype=torch.float64))
    after = {method: ClassMaps(network, method=method)(batch).maps for method in methods}
    for method in ("infocam", "infocam+"):
        torch.testing.assert_close(after[method], before[method])
    assert (after["cam"] - before["cam"]).abs().max() > 0.1


def test_batches_give_what_one_batch_gives_and_several_targets_their_maps():
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    explain = ClassMaps(network, window=3)
    batch = images(7)
    whole = explain(batch)
    parts = explain(batch, batch_size=2)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    target = torch.randint(CLASSES, (7, 2), generator=torch.Generator().manual_seed(0))
    maps = explain(batch, target, batch_size=3).maps
    assert maps.shape == (7, 2, 4, 3)
    torch.testing.assert_close(maps[:, 1], explain(batch, target[:, 1]).maps)
    alone = explain(batch[:1])
    torch.testing.assert_close(alone.maps, whole.maps[:1])


def test_the_network_is_left_as_it_was():
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    network.trunk[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    out = ClassMaps(network)(images())
    assert not out.maps.requires_grad
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_in_training_mode_is_read_as_in_evaluation_mode():
    network = Network(ENDS["dropout"][0], dropout=nn.Dropout(0.5)).train()
    first = ClassMaps(network)(images()).maps
    torch.testing.assert_close(ClassMaps(network.eval())(images()).maps, first)


def test_modes_come_back_after_an_error():
    network = flatten_network().train()
    with pytest.raises(ValueError, match="flattened"):
        ClassMaps(network)(images())
    assert all(module.training for module in network.modules())


def decoder(net, x):
    logits = net.fc(x.mean((2, 3)))
    net.decoded = net.decode(x)  # another map, made after the one that is averaged
    return logits


def early_map(net, x):
    pooled = x.mean((2, 3))
    net.decoded = net.decode(x).relu()
    return net.fc(pooled)


def test_a_map_that_is_not_the_last_is_found_by_its_name():
    network = Network(early_map, decode=nn.Conv2d(CHANNELS, CHANNELS, 1))
    with pytest.raises(ValueError, match="name the map's module with layer="):
        ClassMaps(network)(images())
    out = ClassMaps(network, layer="trunk")(images())
    plain = Network(lambda net, x: net.fc(x.mean((2, 3))))
    plain.load_state_dict(network.state_dict(), strict=False)
    torch.testing.assert_close(out.maps, ClassMaps(plain)(images()).maps)
    assert not network.trunk._forward_hooks


def test_what_comes_after_the_classifier_does_not_disturb():
    network = Network(decoder, decode=nn.Conv2d(CHANNELS, CHANNELS, 3))
    assert ClassMaps(network)(images()).maps.shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("trunk.5", "layer 'trunk.5' is no module of Network; near: .*trunk"),
        ("fc", r"layer 'fc' must return a map \(N, C, h, w\); it returns \(3, 5\)"),
        ("trunk.3", "is not the mean of the last map"),
    ],
)
def test_a_layer_that_is_not_the_map_is_refused(layer, message):
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    with pytest.raises(ValueError, match=message):
        ClassMaps(network, layer=layer)(images())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_layer_of_other_channels_is_refused_too():
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    with pytest.raises(ValueError, match="is not the mean of the last map"):
        ClassMaps(network, layer="trunk.0")(images())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused_by_example(bad):
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    batch = images()
    batch[1] = bad
    with pytest.raises(ValueError, match="logits must be finite; those of example 1"):
        ClassMaps(network)(batch)
    model = lastlayer.Classifier(GapCNN((2, 8, 6)), build_head("softmax", 64, 3))
    with pytest.raises(ValueError, match="logits must be finite; those of example 1"):
        ClassMaps(model)(batch)


def test_one_class_has_a_cam_and_no_infocam():
    network = nn.Sequential(trunk(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 1))
    assert ClassMaps(network, method="cam")(images()).maps.shape == (3, 4, 3)
    with pytest.raises(ValueError, match="at least 2 classes"):
        ClassMaps(network)(images())


def test_infocam_plus_of_the_least_likely_class_is_an_all_zero_map():
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    lowest = ClassMaps(network)(images()).logits.argmin(1)
    assert not ClassMaps(network, method="infocam+")(images(), lowest).maps.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_give_the_maps_of_full_precision(dtype):
    network = Network(lambda net, x: net.fc(F.relu(x).mean((2, 3)))).eval()
    target = torch.tensor([0, 1, 2])
    expected = ClassMaps(network)(images(), target).maps
    tight = {"rtol": 0.05, "atol": 0.05 * float(expected.abs().max())}
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype):
            found = ClassMaps(network)(images(), target).maps
        torch.testing.assert_close(found, expected, **tight)
    found = ClassMaps(network.to(dtype))(images(dtype=dtype), target).maps
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, **tight)


def test_a_compiled_network_is_read_through_what_it_was_made_of():
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    compiled = torch.compile(network, backend="eager")
    torch.testing.assert_close(
        ClassMaps(compiled)(images()).maps, ClassMaps(network)(images()).maps
    )


def test_windows_and_paddings_are_those_of_the_function():
    network = Network(lambda net, x: net.fc(x.mean((2, 3))))
    readout = read_out(network, images())
    target = torch.tensor([0, 1, 2])
    options = {"window": 2, "padding": "valid", "reduction": "sum"}
    found = ClassMaps(network, **options)(images(), target).maps
    expected = class_map(readout.features, readout.weight, target, **options)
    assert found.shape == (3, 3, 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gradcam"}, "method must be one of"),
        ({"window": 0}, "window must be a whole number"),
        ({"padding": "full"}, "padding must be one of"),
        ({"reduction": "max"}, "reduction must be one of"),
    ],
)
def test_options_are_checked_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        ClassMaps(nn.Identity(), **options)


def test_bad_batches_are_refused():
    explain = ClassMaps(Network(lambda net, x: net.fc(x.mean((2, 3)))))
    with pytest.raises(ValueError, match="at least one example"):
        explain(images()[:0])
    with pytest.raises(ValueError, match="target must have one row per image, 3"):
        explain(images(), torch.zeros(2).long())
    with pytest.raises(ValueError, match=r"target must lie in \[0, 4\]"):
        explain(images(), torch.tensor([0, 5, 1]))
    with pytest.raises(ValueError, match="batch_size"):
        explain(images(), batch_size=0)
    with pytest.raises(TypeError, match="model must return a tensor of logits; got tuple"):
        ClassMaps(Network(lambda net, x: (net.fc(x.mean((2, 3))),)))(images())
