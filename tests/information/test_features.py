"""H-scores as results, and of the layers of a network."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from lastlayer.functional.dependence import h_score as h_score_value
from lastlayer.functional.dependence import shrunk_h_score
from lastlayer.heads import Classifier, Softmax
from lastlayer.information import FeatureReport, LayerScores, feature_report, h_score


def examples(n: int = 240) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(n) % 3
    images = torch.rand(n, 1, 8, 8, generator=generator)
    return images + target[:, None, None, None] * torch.linspace(0, 0.4, 8), target


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 5),
    )  # fmt: skip


def test_score_carries_value_null_and_shrunk_value():
    generator = torch.Generator().manual_seed(0)
    features, target = torch.randn(500, 6, generator=generator), torch.arange(500) % 4
    score = h_score(features, target)
    assert score.value == float(h_score_value(features, target))
    assert score.shrunk == float(shrunk_h_score(features, target))
    assert score.null == pytest.approx(6 * 3 / 499)
    assert (score.rank, score.num_features, score.num_classes) == (6, 6, 4)
    assert (score.num_examples, score.maximum, score.warnings) == (500, 3, ())
    assert score.above_null == score.value - score.null
    assert json.loads(json.dumps(score.as_dict()))["above_null"] == score.above_null


def test_few_examples_and_one_class_warn_and_say_so():
    noise = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="noise included"):
        score = h_score(noise, torch.arange(30) % 3)
    assert score.value == pytest.approx(2.0)
    assert score.null == 2.0
    assert len(score.warnings) == 1
    with pytest.warns(UserWarning, match="one label"):
        assert h_score(noise[:, :2], torch.zeros(30, dtype=torch.int64)).value == 0.0


def test_report_streams_the_scores_of_pooled_layers():
    images, target = examples()
    model = network()
    report = feature_report(model, target, inputs=images, batch_size=64)
    assert list(report.scores) == ["0", "4", "6"]
    with torch.no_grad():
        model.eval()
        first = model[0](images).double().mean((2, 3))
        logits = model(images)
    for name, features in {"0": first, "6": logits}.items():
        expected = float(h_score_value(features, target))
        assert report.scores[name].value == pytest.approx(expected, abs=1e-8)
        shrunk = float(shrunk_h_score(features, target))
        assert report.scores[name].shrunk == pytest.approx(shrunk, abs=1e-8)


def test_network_is_left_as_it_was():
    images, target = examples()
    model = network().train()
    model[3].eval()
    mean = model[1].running_mean.clone()
    feature_report(model, target, inputs=images, layers=["0", "6"])
    assert [module.training for module in model] == [True] * 3 + [False] + [True] * 3
    assert torch.equal(model[1].running_mean, mean)
    assert not any(module._forward_hooks for module in model.modules())
    assert model[0].weight.grad is None


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("*", ["0", "1"]), ("**", ["0", "0.0", "0.1", "1"]), ("0.*", ["0.0", "0.1"]), ("1", ["1"])],
)
def test_a_star_stays_within_one_name_and_two_cross_the_dots(pattern, names):
    nested = nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 3))
    x, target = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 2
    report = feature_report(nested, target, inputs=x, layers=pattern)
    assert list(report.scores) == names  # in the order of the network


def test_later_operations_in_place_do_not_reach_the_scores():
    images, target = examples()
    model = network()
    report = feature_report(model, target, inputs=images, layers="[12]")
    with torch.no_grad():
        normalized = model.eval()[1](model[0](images))
    for name, maps in {"1": normalized, "2": normalized.relu()}.items():
        expected = float(h_score_value(maps.double().mean((2, 3)), target))
        assert report.scores[name].value == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("pool", [None, lambda output: output])
def test_an_activation_in_place_behind_a_linear_layer_does_not_reach_its_score(pool):
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(90, 5, generator=generator), torch.arange(90) % 3
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3))
    report = feature_report(model, target, inputs=x, layers=["0", "2"], pool=pool)
    with torch.no_grad():
        before = model[0](x)
        expected = {"0": before.double(), "2": model[2](before.relu()).double()}
    for name, features in expected.items():
        value = float(h_score_value(features, target))
        assert report.scores[name].value == pytest.approx(value, abs=1e-6)


def test_features_by_name_are_reported_like_layers():
    images, target = examples()
    features = {"pixels": images.flatten(1)[:, :5], "maps": images}
    report = feature_report(features, target, channel_dim=1)
    assert report.scores["maps"].num_features == 1
    assert report.scores["pixels"].num_features == 5
    table = str(report).splitlines()
    assert table[0].split()[:3] == ["layer", "features", "rank"]
    assert table[1].startswith("pixels")
    assert json.loads(json.dumps(report.as_dict()))["pixels"]["rank"] == 5


def test_own_pooling_and_a_classifier_of_ours_are_accepted():
    images, target = examples()
    report = feature_report(
        network(), target, inputs=images, layers="0", pool=lambda maps: maps.amax((2, 3))
    )
    assert report.scores["0"].num_features == 4
    classifier = Classifier(nn.Flatten(), Softmax(64, 3))
    report = feature_report(classifier, target, inputs=images)
    assert list(report.scores) == ["head.classifier"]


def test_doubts_stand_below_the_table():
    images, target = examples(20)
    report = feature_report({"pixels": images.flatten(1)}, target)
    assert str(report).splitlines()[-1].startswith("pixels: 19 independent features on 20 examples")


def test_batches_of_a_loader_and_several_arguments_are_taken():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3, 2)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.out(a + b)

    with LayerScores(Two()) as scores:
        for _ in range(3):
            scores.update((torch.randn(20, 3), torch.randn(20, 3)), torch.arange(20) % 2)
    report = scores.report()
    assert isinstance(report, FeatureReport)
    assert report.scores["out"].num_examples == 60


def test_labels_are_taken_as_data_sets_hold_them_and_all_else_is_named():
    images, target = examples(60)
    features = {"pixels": images.flatten(1)}
    expected = feature_report(features, target).as_dict()
    for labels in (target.tolist(), target.numpy(), target.int(), target.numpy().astype("uint8")):
        assert feature_report(features, labels).as_dict() == expected
    whole = feature_report(network(), target.tolist(), inputs=images, batch_size=np.int64(25))
    assert (
        whole.as_dict() == feature_report(network(), target, inputs=images, batch_size=25).as_dict()
    )
    for source, labels, message in (
        (features, ["cat"] * 60, "target must hold integer labels"),
        (features, target / 2, "target must hold integer labels"),
        (images.flatten(1), target, "source must be a network, or a mapping .* got Tensor"),
        ({}, target, "source must be a network, or a mapping .* got an empty one"),
        ({"pixels": images.flatten(1).numpy()}, target, "pixels must be a tensor; got ndarray"),
    ):
        with pytest.raises(TypeError, match=message):
            feature_report(source, labels)


def test_layers_that_cannot_be_heard_are_refused():
    images, target = examples(20)
    relu = nn.ReLU()
    twice = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), relu, nn.Linear(4, 4), relu)
    with pytest.raises(ValueError, match="2 runs more than once"):
        feature_report(twice, target, inputs=images, layers="2")
    assert not relu._forward_hooks
    silent = nn.Sequential(nn.Flatten())
    silent.spare = nn.Linear(64, 2)
    silent.forward = lambda x: x.flatten(1)
    with pytest.raises(ValueError, match="spare did not run"):
        feature_report(silent, target, inputs=images, layers="spare")
    with pytest.raises(ValueError, match="spare did not run"):  # and there is no other
        feature_report(silent, target, inputs=images)
    with pytest.raises(ValueError, match="no module of Sequential is called 'conv'"):
        feature_report(twice, target, inputs=images, layers="conv")
    with pytest.raises(ValueError, match="no layer with a weight"):
        feature_report(nn.ReLU(), target, inputs=images)


def test_arguments_that_do_not_fit_are_refused():
    images, target = examples(20)
    with pytest.raises(TypeError, match="inputs must be given"):
        feature_report(network(), target)
    with pytest.raises(TypeError, match="belong to a network"):
        feature_report({"a": images}, target, layers="a")
    with pytest.raises(ValueError, match="inputs must hold 20 examples"):
        feature_report(network(), target, inputs=images[1:])
    with pytest.raises(ValueError, match="batch_size"):
        feature_report(network(), target, inputs=images, batch_size=0)
    with pytest.raises(ValueError, match="features must be finite"):
        feature_report(network(), target, inputs=images * math.nan)
    with pytest.raises(RuntimeError, match="with block"):
        LayerScores(network()).update(images, target)
    with LayerScores(network()) as scores, pytest.raises(TypeError, match=r"a tuple .* got list"):
        scores.update([images], target)
    with pytest.raises(TypeError, match=r"inputs\['ids'\] must be a tensor; got list"):
        feature_report(network(), target, inputs={"ids": images.tolist()})
    with pytest.raises(
        ValueError, match=r"one row per example .* inputs\[0\]: 20, inputs\[1\]: 19"
    ):
        feature_report(network(), target, inputs=(images, images[1:]))
