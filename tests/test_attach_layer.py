"""Which layers of which networks a head can replace, and what it says of what is lost."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from lastlayer.heads import Classifier, DropMax, Softmax, attach, build_head, grow

D, K = 6, 4
INPUTS = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Linear):
    """A forward of its own."""

    def forward(self, features: Tensor) -> Tensor:
        return 3 * super().forward(features)


class Named(nn.Linear):
    """A subclass that computes what nn.Linear does."""


class Cast(nn.Linear):
    """A forward of its own that is the product, as that of timm's MobileNetV3."""

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.weight.T.to(features.dtype) + self.bias


class Dropped(nn.Linear):
    """Another forward while training only."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(F.dropout(features, 0.5, self.training))


class Clipped(nn.Linear):
    """Another forward for large features only."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.clamp(-20, 20))


class ZeroAdapter(nn.Linear):
    """Another forward once it has learned."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.up = nn.Parameter(torch.zeros(K, 1))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + features.sum(-1, keepdim=True) @ self.up.T


class Network(nn.Module):
    def __init__(self, kind: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, D), nn.BatchNorm1d(D), nn.Tanh())
        self.fc = kind(D, K)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(self.body(inputs))


def with_own_forward() -> Network:
    network = Network()
    network.fc.forward = lambda features: 3 * nn.Linear.forward(network.fc, features)
    return network


OWN = [lambda kind=kind: Network(kind) for kind in (Scaled, Dropped, Clipped, ZeroAdapter)]


@pytest.mark.parametrize("make", [*OWN, with_own_forward])
def test_a_layer_with_a_forward_of_its_own_is_refused(make: Callable[[], Network]) -> None:
    network = make()
    fc = network.fc
    with pytest.raises(
        ValueError,
        match=r"layer 'fc' must compute what nn.Linear does; got .* with a forward of its own",
    ):
        attach(network, "softmax", layer="fc")
    assert network.fc is fc


@pytest.mark.parametrize("kind", [Named, Cast])
def test_a_subclass_that_computes_what_linear_does_is_replaced(kind: type[nn.Linear]) -> None:
    network = Network(kind).eval()
    expected = network(INPUTS).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax")(INPUTS), expected)


def nothing(*args: object) -> None:
    """Do nothing, as a hook."""


HOOKS: dict[str, Callable[[nn.Linear], object]] = {
    "nothing": lambda fc: fc.register_forward_hook(nothing),
    "nothing ": lambda fc: fc.register_forward_pre_hook(nothing),
    "nothing  ": lambda fc: fc.register_full_backward_hook(nothing),
    "nothing   ": lambda fc: fc.register_full_backward_pre_hook(nothing),
    "nothing    ": lambda fc: fc.weight.register_hook(nothing),
    "nothing     ": lambda fc: fc.bias.register_post_accumulate_grad_hook(nothing),
    "L1Unstructured": lambda fc: prune.l1_unstructured(fc, "weight", 0.5),
    "WeightNorm": nn.utils.weight_norm,
    "SpectralNorm": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_that_would_be_lost_are_named(hook: str) -> None:
    network = Network()
    HOOKS[hook](network.fc)
    with pytest.raises(ValueError, match=f"'fc' must have no hooks.* got {hook.strip()}: remove"):
        attach(network, "softmax")


def test_pruned_weights_are_kept_once_the_mask_is_made_permanent() -> None:
    network = Network().eval()
    prune.l1_unstructured(network.fc, "weight", 0.5)
    prune.remove(network.fc, "weight")
    expected = network(INPUTS).log_softmax(-1)
    model = attach(network, "softmax")
    torch.testing.assert_close(model(INPUTS), expected)
    assert int((model.head.classifier.weight == 0).sum()) == D * K // 2


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_a_parametrized_layer_starts_the_head_from_its_values_with_a_warning(kind: str) -> None:
    network = Network().eval()
    getattr(parametrizations, kind)(network.fc)
    with torch.no_grad():
        expected = network(INPUTS).log_softmax(-1)
    with pytest.warns(UserWarning, match=r"layer 'fc' is parametrized \(weight: .*\); the head"):
        model = attach(network, "softmax")
    torch.testing.assert_close(model(INPUTS), expected)


class Tied(nn.Module):
    """Predicts tokens by the embeddings of tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, D)
        self.lm_head = nn.Linear(D, 11, bias=False)
        self.lm_head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.embedding(tokens))


def test_a_tied_weight_becomes_a_copy_with_a_warning_and_can_be_tied_again() -> None:
    network, tokens = Tied(), torch.arange(6).view(2, 3)
    expected = network(tokens).log_softmax(-1)
    with pytest.warns(UserWarning, match="the weight of layer 'lm_head' is also embedding.weight"):
        model = attach(network, "softmax")
    assert model.head.classifier.weight is not model.backbone.embedding.weight
    model.head.classifier.weight = model.backbone.embedding.weight  # as the warning says
    torch.testing.assert_close(model(tokens), expected)


def test_an_ordinary_network_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(Network(), "dropmax")
        attach(Tied(), Softmax(D, 11))  # what a ready-made head shares is its maker's choice


def test_a_square_layer_under_two_names_acts_under_neither() -> None:
    network = nn.Module()
    network.body, network.fc = nn.Linear(8, K), nn.Linear(K, K)
    network.alias = network.fc
    network.forward = lambda x: network.alias(network.body(x).relu())
    expected = network.forward(INPUTS).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax", layer="fc")(INPUTS), expected)


def test_a_lazy_layer_is_run_first() -> None:
    network = nn.Sequential(nn.LazyLinear(D), nn.Tanh(), nn.LazyLinear(K))
    with pytest.raises(ValueError, match=r"got LazyLinear.*run the network once, then attach"):
        attach(network, "softmax", layer="2")
    expected = network(INPUTS).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax", layer="2")(INPUTS), expected)


# -- whole networks -------------------------------------------------------------------------------


class FullyShardedDataParallel(nn.Module):
    """Of the name of torch's, which needs several processes."""


class FSDPModule:
    """Of the name of the class that torch's fully_shard mixes in."""


class FSDPNetwork(FSDPModule, Network):
    pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: nn.DataParallel(Network()), r"got DataParallel: attach to its \.module"),
        (lambda: torch.compile(Network()), r"got OptimizedModule: attach to its \._orig_mod"),
        (FullyShardedDataParallel, "got FullyShardedDataParallel: attach to its"),
        (FSDPNetwork, "not be sharded yet; got FSDPNetwork"),
        (lambda: torch.jit.script(Network()), "got RecursiveScriptModule"),
        (lambda: torch.jit.trace(Network().eval(), INPUTS), "got TopLevelTracedModule"),
        (lambda: Softmax(D, K), "got Softmax"),
        (lambda: nn.Sequential(nn.Flatten(), Softmax(D, K)), r"model\.1 must be .* got Softmax"),
        (lambda: nn.Sequential(nn.DataParallel(Network())), r"model\.0 must be .*got DataP"),
    ],
)
def test_what_is_wrapped_compiled_scripted_or_a_head_is_refused(
    make: Callable[[], nn.Module], found: str
) -> None:
    model = make()
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    with pytest.raises(TypeError, match=found):
        attach(model, "softmax", layer=names[-1] if names else None)


def test_a_wrapped_part_beside_the_layer_stays() -> None:
    network = Network().eval()
    network.body = nn.DataParallel(network.body)
    expected = network(INPUTS).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax", layer="fc")(INPUTS), expected)


class Product(nn.Module):
    """A last layer that is no nn.Linear, as transformers' Conv1D."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, K))


@pytest.mark.parametrize("end", [Product(), nn.Conv2d(D, K, 1)])
def test_a_hidden_layer_is_not_taken_where_the_network_ends_in_another_kind(end: nn.Module) -> None:
    network = Network()
    network.fc = end
    kind = f"{type(end).__module__}.{type(end).__name__}"
    with pytest.raises(ValueError, match=f"to end in 'fc', which is no nn.Linear but {kind}"):
        attach(network, "softmax")
    with pytest.raises(ValueError, match=f"'fc' is not an nn.Linear of the model but {kind}"):
        attach(network, "softmax", layer="fc")


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_several_labels_for_one_input_are_not_turned_into_one(problem: str) -> None:
    network = Network()
    network.config = SimpleNamespace(problem_type=problem)
    with pytest.raises(ValueError, match=f"problem_type is '{problem}'"):
        attach(network, "softmax")
    network.config.problem_type = None
    attach(network, "softmax")


# -- modes and parameters -------------------------------------------------------------------------


def modes(module: nn.Module) -> set[bool]:
    return {part.training for part in module.modules()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("head", ["dropmax", DropMax(D, K)])
def test_the_classifier_is_in_the_mode_of_the_network(head: str | DropMax, training: bool) -> None:
    assert modes(attach(Network().train(training), copy.deepcopy(head))) == {training}
    body, built = Network().body.train(training), build_head("dropmax", D, K)
    classifier = Classifier(body, built)
    assert modes(classifier) == {training}
    grow(classifier.head, 2)
    assert modes(classifier) == {training}
    assert modes(attach(nn.Linear(8, K).train(training), "softmax")) == {training}


def test_frozen_parts_of_a_network_in_training_mode_stay_frozen() -> None:
    network = Network().train()
    network.body[1].eval()
    model = attach(network, "softmax")
    assert [model.training, model.head.training, network.body[1].training] == [True, True, False]


@pytest.mark.parametrize("name", ["softmax", "dropmax", "attention"])
def test_a_parameter_shared_by_backbone_and_head_is_in_the_groups_once(name: str) -> None:
    model = Classifier(nn.Embedding(K, D), build_head(name, D, K, bias=False))
    model.head.classifier.weight = model.backbone.weight
    for layer in model.head.branches().values():
        layer.weight = next(iter(model.head.branches().values())).weight  # branches tied too
    groups = model.param_groups(weight_decay=0.1)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())  # which lists each once
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of duplicates
        torch.optim.SGD(groups, lr=0.1)
