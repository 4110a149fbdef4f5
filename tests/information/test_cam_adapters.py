"""infoCAM through other packages' tools, and what the adapters are made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lastlayer
from lastlayer.information import ClassMaps, ContrastModel, contrast_linear, contrast_target
from lastlayer.models import GapCNN

CLASSES = 5


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    ).eval()


def images():
    return torch.randn(4, 2, 5, 3, generator=torch.Generator().manual_seed(1))


TARGET = [3, 0, 1, 1]
CELLS = 15


def infocam(model, method="infocam"):
    return ClassMaps(model, method=method)(images(), torch.tensor(TARGET)).maps


@pytest.mark.parametrize("method", ["cam", "infocam", "infocam+"])
def test_the_signed_gradcam_of_the_contrasts_is_the_map_over_the_number_of_cells(method):
    model = network()
    contrast = ContrastModel(model, method)
    kept = []
    handle = model[1].register_forward_hook(lambda _, __, out: kept.append(out))
    scores = contrast(images())
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[range(4), TARGET].sum(), kept[0])
    gradcam = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)
    torch.testing.assert_close(CELLS * gradcam, infocam(model, method))


def test_a_classifier_contrasts_its_linear_logits():
    torch.manual_seed(0)
    backbone = GapCNN((2, 8, 8), channels=(3, 3, 3, 3))
    model = lastlayer.Classifier(backbone, lastlayer.heads.DropMax(3, CLASSES)).eval()
    batch = torch.rand(4, 2, 8, 8)
    linear = model.head.classifier
    features = backbone(batch)
    logits = features @ linear.weight.T + linear.bias
    contrast = ContrastModel(model)
    assert not contrast.training
    expected = logits - (logits.sum(1, keepdim=True) - logits) / (CLASSES - 1)
    torch.testing.assert_close(contrast(batch), expected)


def test_a_contrasted_layer_has_infocam_for_its_cam_and_the_same_order_of_classes():
    model = network()
    before, expected = model(images()), infocam(model)
    model[4] = contrast_linear(model[4])
    torch.testing.assert_close(infocam(model, "cam"), expected)
    after = model(images())
    assert torch.equal(before.argsort(1), after.argsort(1))
    difference = (before[:, 0] - before[:, 1]) * CLASSES / (CLASSES - 1)
    torch.testing.assert_close(after[:, 0] - after[:, 1], difference)
    assert contrast_linear(nn.Linear(3, 4, bias=False)).bias is None


def test_a_target_is_the_contrast_of_one_example_or_of_many():
    logits = network()(images())
    for method in ("cam", "infocam", "infocam+"):
        whole = ContrastModel(nn.Identity(), method)(logits)
        torch.testing.assert_close(contrast_target(2, method)(logits), whole[:, 2])
        torch.testing.assert_close(contrast_target(2, method)(logits[1]), whole[1, 2])


def test_unknown_methods_and_single_classes_are_refused():
    for make in (lambda: ContrastModel(network(), "grad"), lambda: contrast_target(0, "grad")):
        with pytest.raises(ValueError, match="method must be one of"):
            make()
    with pytest.raises(ValueError, match="at least 2 classes"):
        contrast_linear(nn.Linear(3, 1))


def test_captum_gives_infocam_over_the_number_of_cells():
    attr = pytest.importorskip("captum.attr")
    model = network()
    for method in ("cam", "infocam", "infocam+"):
        gradcam = attr.LayerGradCam(ContrastModel(model, method), model[1])
        found = gradcam.attribute(images(), target=torch.tensor(TARGET))
        torch.testing.assert_close(CELLS * found[:, 0].detach(), infocam(model, method))


def test_torchcam_gives_infocam_with_what_is_negative_cut_at_zero():
    methods = pytest.importorskip("torchcam.methods")
    model = network()
    contrast = ContrastModel(model)
    with methods.GradCAM(contrast, model[1]) as extractor:
        (found,) = extractor(TARGET, contrast(images()), normalized=False)
    torch.testing.assert_close(CELLS * found, infocam(model).clamp_min(0))
    with methods.GradCAM(model, model[1]) as extractor:
        scores = model(images())
        targets = [contrast_target(label) for label in TARGET]
        (found,) = extractor(scores=scores, targets=targets, normalized=False)
    torch.testing.assert_close(CELLS * found, infocam(model).clamp_min(0))


def test_torchcam_cam_of_the_layer_is_cam_and_of_the_contrasted_layer_infocam():
    methods = pytest.importorskip("torchcam.methods")
    model = network()
    expected = {"cam": infocam(model, "cam"), "infocam": infocam(model)}
    for method, maps in expected.items():
        if method == "infocam":
            model[4] = contrast_linear(model[4])
        with methods.CAM(model, model[1], fc_layer=model[4]) as extractor:
            model(images())
            (found,) = extractor(TARGET, normalized=False)
        torch.testing.assert_close(found, maps)


def test_torchcam_finer_cam_of_all_other_classes_is_infocam_cut_at_zero():
    methods = pytest.importorskip("torchcam.methods")
    model = network()
    finer = methods.FinerCAM(model, model[1], gamma=1.0, num_references=CLASSES - 1)
    with finer as extractor:
        (found,) = extractor(TARGET, model(images()), normalized=False)
    torch.testing.assert_close(CELLS * found, infocam(model).clamp_min(0))


@pytest.mark.filterwarnings("ignore")  # torch.ao has been deprecated for years
def test_the_contrast_of_a_quantized_layer_is_that_of_its_numbers():
    quantized = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear})[4]
    weight = quantized.weight().dequantize()
    others = (weight.sum(0) - weight) / (CLASSES - 1)
    torch.testing.assert_close(contrast_linear(quantized).weight, weight - others)


def test_layers_that_are_more_than_their_weights_have_no_contrast():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 3 * super().forward(x)

    with pytest.raises(TypeError, match="got Scaled, which computes its output in its own way"):
        contrast_linear(Scaled(3, 4))
    hooked = nn.Linear(3, 4)
    hooked.register_forward_hook(print)
    with pytest.raises(ValueError, match=r"linear must have no hooks.* got print: remove"):
        contrast_linear(hooked)
