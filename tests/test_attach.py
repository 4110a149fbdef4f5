"""Swapping a network's last linear layer for a head."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lastlayer.heads import Classifier, DropMax, HeadOutput, Softmax, attach

IMAGES = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 4, 2])


class Network(nn.Module):
    """A small network that ends in a layer of a given name, and may hold other linear layers."""

    def __init__(self, name: str = "fc", hidden: bool = True, **options):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8) if hidden else nn.AvgPool1d(2))
        self.name = name
        parent = self
        *above, leaf = name.split(".")
        for part in above:
            parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(leaf, nn.Linear(8, 5, **options))

    def forward(self, images: Tensor) -> Tensor:
        return self.get_submodule(self.name)(self.body(images).relu())


@dataclass
class Output:
    logits: Tensor


class OutputNetwork(Network):
    """Returns an object that carries the last layer's output, as transformers' models do."""

    def forward(self, images: Tensor) -> Output:
        return Output(logits=super().forward(images))


CONVENTIONAL = ["fc", "classifier", "head", "heads.head", "head.fc", "logits", "score"]
CONVENTIONAL += ["classifier.6", "last_linear", "classification_head.out_proj", "logits_proj"]


@pytest.mark.parametrize("name", CONVENTIONAL)
def test_the_last_layer_is_found_under_the_names_that_libraries_give_it(name):
    model = attach(Network(name), "softmax")
    assert isinstance(model.backbone.get_submodule(name), nn.Identity)
    assert isinstance(model.backbone.body[1], nn.Linear)
    assert model.eval()(IMAGES).shape == (3, 5)


def test_a_block_of_a_customary_name_counts_by_its_last_layer():
    network = nn.Module()
    network.body = nn.Linear(4, 8)
    network.classifier = nn.Sequential(nn.Linear(8, 7), nn.Tanh(), nn.Dropout(), nn.Linear(7, 5))
    assert attach(network, "softmax")._after.name == "classifier.3"


def test_a_network_that_says_which_layer_gives_the_classes_is_asked():
    class Asked(Network):
        def get_classifier(self):
            return self.get_submodule(self.name)

    network = Asked("out.last")
    network.fc = nn.Linear(8, 5)
    assert attach(network, "softmax")._after.name == "out.last"


def test_several_last_layers_that_a_network_speaks_of_are_refused():
    class Distilled(Network):
        num_classes = 5

        def get_classifier(self):
            return self.fc, self.other

    network = Distilled()
    network.other = nn.Linear(8, 5)
    with pytest.raises(ValueError, match=r"2 last layers .*reset_classifier\(0\)"):
        attach(network, "softmax")


@pytest.mark.parametrize("told", ["num_classes", "config"])
def test_the_number_of_classes_tells_the_layer_where_names_do_not(told):
    network = Network("out")
    network.num_classes = 5
    if told == "config":  # as transformers keep it
        network.config = SimpleNamespace(num_labels=network.__dict__.pop("num_classes"))
    assert attach(network, "softmax")._after.name == "out"
    named = Network("classifier")
    named.head, named.num_classes = nn.Linear(8, 8), 5
    assert attach(named, "softmax")._after.name == "classifier"


@pytest.mark.parametrize("hidden", [True, False])
def test_a_network_built_without_its_last_layer_is_told_what_to_do(hidden):
    network = Network(hidden=hidden)
    network.fc = nn.Identity()
    with pytest.raises(ValueError, match=r"\(fc is nn\.Identity, as for num_classes=0\)") as caught:
        attach(network, "softmax")
    assert "build lastlayer.Classifier(network, head)" in str(caught.value)


def test_a_layer_under_two_names_is_replaced_under_both():
    network = Network("fc")
    network.alias = network.fc
    model = attach(network, "softmax", layer="fc")
    assert network.alias is network.fc
    assert isinstance(network.fc, nn.Identity)
    assert model.eval()(IMAGES).shape == (3, 5)


def test_a_quantized_layer_is_refused():
    network = Network()
    network.fc.weight = nn.Parameter(torch.zeros(5, 8, dtype=torch.int8), requires_grad=False)
    with pytest.raises(
        TypeError, match=r"layer 'fc' must have floating-point weights; got torch\.int8"
    ):
        attach(network, "softmax")


def test_a_network_that_has_a_head_already_is_refused():
    with pytest.raises(ValueError, match="model has a head already"):
        attach(attach(Network(), "softmax"), "dropmax")


def test_a_single_linear_layer_is_found_whatever_its_name():
    model = attach(Network("out", hidden=False), "softmax")
    assert isinstance(model.backbone.out, nn.Identity)


def test_a_layer_is_replaced_by_its_dotted_name():
    network = nn.Sequential(
        OrderedDict(body=nn.Flatten(), top=nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 5)))
    )
    model = attach(network, "dropmax", layer="top.1")
    assert isinstance(network.top[1], nn.Identity)
    assert (model.head.in_features, model.head.num_classes) == (8, 5)


@pytest.mark.parametrize("name", ["out", "top.last"])
def test_an_ambiguous_network_is_refused_and_its_layers_are_listed(name):
    network = Network(name)
    with pytest.raises(ValueError, match=r"has 2 nn\.Linear layers") as caught:
        attach(network, "softmax")
    assert "body.1: Linear(16, 8)" in str(caught.value)
    assert f"{name}: Linear(8, 5)" in str(caught.value)
    assert isinstance(network.get_submodule(name), nn.Linear)


def test_two_conventional_names_are_ambiguous_too():
    network = Network("fc")
    network.head = nn.Linear(8, 5)
    with pytest.raises(ValueError, match="which one is last cannot be told"):
        attach(network, "softmax")


def test_a_layer_that_is_not_there_or_not_linear_is_named():
    for layer in ("nope", "body", "body.0"):
        with pytest.raises(ValueError, match=f"layer '{layer}' is not an nn.Linear of the model"):
            attach(Network(), "softmax", layer=layer)


def test_a_network_without_a_linear_layer_is_refused():
    with pytest.raises(ValueError, match=r"Sequential has no nn\.Linear to replace"):
        attach(nn.Sequential(nn.Flatten()), "softmax")


def test_a_linear_layer_itself_becomes_the_head():
    linear = nn.Linear(16, 5)
    model = attach(linear, "softmax")
    expected = linear(IMAGES.flatten(1)).log_softmax(-1)
    torch.testing.assert_close(model.eval()(IMAGES.flatten(1)), expected)


@pytest.mark.parametrize("head", ["softmax", "sampled", "class-dropout", "label-smoothing"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_trained_softmax_network_predicts_as_before(head, bias):
    network = Network(bias=bias).eval()
    expected = network(IMAGES).log_softmax(-1)
    model = attach(network, head).eval()
    assert (model.head.classifier.bias is not None) == bias
    torch.testing.assert_close(model(IMAGES), expected)


def test_dropmax_starts_from_the_trained_weights_too():
    network = Network()
    linear = network.fc
    model = attach(network, "dropmax")
    torch.testing.assert_close(model.head.classifier.weight, linear.weight)
    torch.testing.assert_close(model.head.classifier.bias, linear.bias)
    assert model.head.classifier.weight is not linear.weight


def test_a_bias_that_the_layer_lacked_starts_at_zero():
    network = Network(bias=False).eval()
    expected = network(IMAGES).log_softmax(-1)
    model = attach(network, "softmax", bias=True).eval()
    torch.testing.assert_close(model(IMAGES), expected)


def test_another_number_of_classes_starts_afresh():
    model = attach(Network(), "softmax", num_classes=9)
    assert model.eval()(IMAGES).shape == (3, 9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_head_takes_over_dtype_and_device(dtype):
    model = attach(Network().to(dtype), "dropmax")
    assert {p.dtype for p in model.head.parameters()} == {dtype}
    assert model.eval()(IMAGES.to(dtype)).shape == (3, 5)
    on_meta = attach(Network().to("meta"), "dropmax")
    assert {p.device.type for p in on_meta.head.parameters()} == {"meta"}


def test_options_reach_the_head():
    model = attach(Network(), "dropmax", temperature=0.3, ignore_index=-1)
    assert (model.head.temperature, model.head.ignore_index) == (0.3, -1)


def test_a_head_can_be_given_ready_made():
    head = DropMax(8, 7)
    assert attach(Network(), head).head is head
    with pytest.raises(ValueError, match=r"options \['bias'\] are for a head given by name"):
        attach(Network(), DropMax(8, 7), bias=True)


def test_a_refused_head_leaves_the_network_as_it_was():
    network = Network()
    before = network(IMAGES)
    with pytest.raises(ValueError, match="head must take the 8 features of layer 'fc'; it takes 6"):
        attach(network, Softmax(6, 5))
    with pytest.raises(ValueError, match="unknown head"):
        attach(network, "sofmax")
    with pytest.raises(ValueError, match="temperature must be"):
        attach(network, "dropmax", temperature=0.0)
    assert torch.equal(network(IMAGES), before)


def test_output_objects_with_logits_are_understood():
    network = OutputNetwork("classifier").eval()
    expected = network(IMAGES).logits.log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax").eval()(IMAGES), expected)


def test_a_backbone_that_returns_something_else_is_refused():
    class Pair(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(TypeError, match=r"backbone must return a tensor .* got tuple"):
        Classifier(Pair(), Softmax(4, 2))(IMAGES)


def test_a_target_gives_the_heads_loss_and_gradients_reach_the_backbone():
    model = attach(Network(), "dropmax")
    out = model(IMAGES, target=TARGET)
    assert isinstance(out, HeadOutput)
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_without_a_target_a_training_model_with_a_stochastic_head_refuses():
    with pytest.raises(ValueError, match="DropMax needs the target in training mode"):
        attach(Network(), "dropmax")(IMAGES)


def test_the_optimizer_groups_hold_every_parameter_once_and_decay_all_but_the_branches():
    model = attach(Network(), "dropmax")
    decayed, undecayed = model.param_groups(weight_decay=0.1)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    branches = {id(p) for layer in model.head.branches().values() for p in layer.parameters()}
    assert {id(p) for p in undecayed["params"]} == branches
    every = [id(p) for p in (*decayed["params"], *undecayed["params"])]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


def test_features_are_what_the_head_is_given():
    network = Network().eval()
    model = attach(network, "softmax").eval()
    torch.testing.assert_close(model.head(model.features(IMAGES)), model(IMAGES))
    assert model.features(IMAGES).shape == (3, 8)


# -- transformers' Trainer ----------------------------------------------------------------------


def test_labels_are_the_target_in_what_a_trainer_reads():
    torch.manual_seed(0)
    model = attach(OutputNetwork("classifier"), "attention")
    expected = model(images=IMAGES, target=TARGET).loss
    output = model(images=IMAGES, labels=TARGET)  # its Trainer calls with names
    assert list(output) == ["loss"]
    assert torch.equal(output["loss"], expected)
    output = model.eval()(images=IMAGES, labels=TARGET)
    torch.testing.assert_close(output["logits"], model(images=IMAGES))
    assert list(output) == ["loss", "logits"]
    signature = inspect.signature(Classifier.forward).parameters
    assert [name for name in signature if "label" in name] == ["labels"]  # what Trainer looks for
    assert model.accepts_loss_kwargs is False


def test_labels_that_cannot_be_used_are_refused():
    model = attach(Network(), "softmax")
    with pytest.raises(ValueError, match=r"remove_unused_columns=False"):
        model(labels=TARGET)
    with pytest.raises(ValueError, match="target and labels are two names of one thing"):
        model(IMAGES, target=TARGET, labels=TARGET)
