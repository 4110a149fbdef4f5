"""What an attached network may do behind the replaced layer, and when that is looked at."""

from __future__ import annotations

import copy
import io
import re
from collections import UserDict, namedtuple
from collections.abc import Callable
from dataclasses import make_dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.heads import Classifier, Softmax, attach

D, K = 6, 4
INPUTS = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))  # (N, T, 8): tokens
Tail = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """Tokens through a body and a last linear layer, and then whatever ``tail`` does."""

    def __init__(self, tail: Tail, *, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, D), nn.Tanh())
        self.fc = nn.Linear(D, K, bias=bias)
        self.tail = tail

    def forward(self, inputs: Tensor) -> Tensor:
        return self.tail(self.fc(self.body(inputs)))


def last_token(logits: Tensor) -> Tensor:
    return logits[torch.arange(len(logits)), torch.tensor([2, 0, 1, 2, 1])]


def masked_mean(logits: Tensor) -> Tensor:
    mask = (torch.arange(3) < torch.tensor([3, 1, 2, 3, 2])[:, None]).to(logits.dtype)
    return (logits * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def added(logits: Tensor) -> Tensor:
    out = torch.zeros(len(logits), logits.shape[-1], dtype=logits.dtype)
    out += logits[:, 0] / 2
    out.add_(logits[:, 0], alpha=0.5)
    return out


def into_out(logits: Tensor) -> Tensor:
    return torch.mean(logits.detach(), 1, out=torch.empty(0, dtype=logits.dtype))


def written(logits: Tensor) -> Tensor:
    out = torch.empty(len(logits), logits.shape[-1], dtype=logits.dtype)
    out[:] = logits[:, 0]
    return out


COMMUTING: dict[str, Tail] = {
    "nothing": lambda x: x,
    "first token": lambda x: x[:, 0],
    "last token by index": last_token,
    "gather": lambda x: x.gather(1, torch.zeros(5, 1, x.shape[-1], dtype=torch.long)).squeeze(1),
    "mean": lambda x: x.mean(1),
    "mean over a mask": masked_mean,
    "view by its own width": lambda x: x.reshape(-1, x.shape[-1]),
    "permuted and back": lambda x: x.transpose(1, 2).contiguous().mT.flatten(0, 1),
    "cast": lambda x: x.double(),
    "mean of two crops": lambda x: torch.stack([x[:, 0], x[:, 1]]).mean(0),
    "written into": written,
    "added in place": added,
    "into out": into_out,
    "last of several outputs": lambda x: x.unbind(1)[-1],
    "mean of two outputs": lambda x: sum(x.chunk(3, 1)[1:]).squeeze(1) / 2,
    "pooled": lambda x: F.adaptive_avg_pool1d(x.mT, 1).squeeze(-1),
}
CHANGING: dict[str, Tail] = {
    "log_softmax": lambda x: x.log_softmax(-1),
    "softmax": lambda x: F.softmax(x, dim=-1),
    "softmax of the last of several outputs": lambda x: x.unbind(1)[-1].softmax(-1),
    "sigmoid": torch.sigmoid,
    "relu": lambda x: x.relu_(),
    "soft cap": lambda x: 30 * torch.tanh(x / 30),
    "scaled": lambda x: x / 0.07,
    "another bias": lambda x: x + 1,
    "max over tokens": lambda x: x.amax(1),
    "sum over tokens": lambda x: x.sum(1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "normalized": lambda x: F.normalize(x, dim=-1),
    "squeeze-excite gate": lambda x: torch.ones_like(x) * x.sigmoid(),
    "width lost": lambda x: x[..., :2],
    "constant": lambda x: torch.zeros(len(x), x.shape[-1]),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tail", COMMUTING)
def test_selecting_reshaping_and_averaging_may_follow(
    tail: str, dtype: torch.dtype, training: bool
) -> None:
    network = Network(COMMUTING[tail]).to(dtype)
    expected = network(INPUTS.to(dtype)).float().log_softmax(-1)
    model = attach(network, "softmax").train(training)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0, "atol": 0.1}
    found = model(INPUTS.to(dtype)).float()
    torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tail", CHANGING)
def test_what_changes_values_is_refused(tail: str, dtype: torch.dtype, training: bool) -> None:
    model = attach(Network(CHANGING[tail]).to(dtype), "softmax").train(training)
    for _ in range(2):  # not only at the first try
        with pytest.raises(ValueError, match=r"layer 'fc' must be the network's last"):
            model(INPUTS.to(dtype))


def test_the_error_says_what_the_output_goes_through_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"goes through mean, log_softmax") as caught:
        attach(Network(lambda x: x.mean(1).log_softmax(-1)), "softmax")(INPUTS)
    assert "lastlayer.Classifier(network, head)" in str(caught.value)


def test_a_factor_is_allowed_for_a_layer_without_bias_only() -> None:
    network = Network(lambda x: x / 0.07, bias=False).eval()
    expected = network(INPUTS).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax")(INPUTS), expected)


class Learned(nn.Module):
    """A factor or a summand that is learned, and does nothing where it starts."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start, self.value = start, nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value if self.start else x + self.value


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_what_is_learned_behind_is_refused_where_it_does_nothing_yet(start: float) -> None:
    with pytest.raises(ValueError, match=r"layer 'fc' must be the network's last"):
        attach(Network(Learned(start)), "softmax")(INPUTS)


def test_a_learned_factor_is_allowed_for_a_layer_without_bias() -> None:
    network = Network(Learned(2.0), bias=False).eval()
    expected = network(INPUTS).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax")(INPUTS), expected)


class Repeated(nn.Module):
    """Runs its square last layer on two inputs, or on its own output."""

    def __init__(self, *, on_itself: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.on_itself, self.fc = on_itself, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if self.on_itself:
            return self.fc(self.fc(x).relu())
        return (self.fc(x) + self.fc(-x)) / 2


def test_a_layer_that_runs_on_its_own_output_is_refused_and_on_two_inputs_is_not() -> None:
    with pytest.raises(ValueError, match="runs it again on its own output"):
        attach(Repeated(on_itself=True), "softmax")(INPUTS)
    network = Repeated(on_itself=False)
    expected = network(INPUTS).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax")(INPUTS), expected)


@pytest.mark.parametrize("name", ["weight", "in_features"])
def test_a_network_that_reads_the_layer_itself_is_refused(name: str) -> None:
    class Reading(Network):
        def forward(self, inputs: Tensor) -> Tensor:
            getattr(self.fc, name)
            return super().forward(inputs)

    with pytest.raises(ValueError, match=rf"the network reads \.{name} of layer 'fc'"):
        attach(Reading(lambda x: x), "softmax")(INPUTS)


def test_another_missing_attribute_is_an_error_of_the_network() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        attach(Network(lambda x: x.nothing), "softmax")(INPUTS)


def test_logits_in_a_dictionary_are_understood_and_auxiliary_ones_refused() -> None:
    network = Network(lambda x: {"logits": x, "hidden": INPUTS})
    expected = network(INPUTS)["logits"].log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax")(INPUTS), expected)
    for output in (dict, SimpleNamespace):
        network = Network(lambda x, output=output: output(logits=x, aux_logits=x))
        with pytest.raises(TypeError, match=rf"got {output.__name__} with aux_logits"):
            attach(network, "softmax")(INPUTS)


class Slots:
    __slots__ = ("aux", "deep_supervision", "logits", "logits2", "logits_aux", "past_key_values")

    def __init__(self, **fields: object) -> None:
        for name, value in fields.items():
            setattr(self, name, value)


FIELDS = [*Slots.__slots__, "loss", "hidden_states", "attentions"]
KINDS: dict[str, Callable[..., object]] = {
    "dict": dict,
    "UserDict": UserDict,
    "dataclass": make_dataclass("Data", [(n, object, None) for n in FIELDS]),
    "dataclass with slots": make_dataclass("Data", [(n, object, None) for n in FIELDS], slots=True),
    "object": SimpleNamespace,
    "object with slots": Slots,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["aux", "logits2", "logits_aux", "deep_supervision"])
def test_an_auxiliary_output_of_any_name_is_refused(kind: str, name: str) -> None:
    for lost in (lambda x: x, lambda x: [x, x], lambda x: (None, x)):
        network = Network(lambda x, lost=lost: KINDS[kind](**{"logits": x, name: lost(x)}))
        with pytest.raises(TypeError, match=rf"got \w+ with {name}\. Auxiliary outputs"):
            attach(network, "softmax")(INPUTS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_auxiliary_output_passes(kind: str) -> None:
    others = {"aux": None, "logits2": (), "past_key_values": [INPUTS]}
    if kind != "object with slots":
        others |= {"loss": INPUTS.sum(), "hidden_states": (INPUTS,), "attentions": INPUTS}
    network = Network(lambda x: KINDS[kind](logits=x, **others))
    expected = network.fc(network.body(INPUTS)).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax")(INPUTS), expected)


def test_a_layer_that_is_not_last_is_refused() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 8)
            self.last = nn.Conv1d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last((x * self.gate(x.mean(1, keepdim=True)).sigmoid()).mT).mean(-1)

    with pytest.raises(ValueError, match="layer 'gate' must be the network's last"):
        attach(Gated(), "softmax")(INPUTS)


def test_a_layer_that_does_not_run_or_does_not_reach_the_output_is_refused() -> None:
    network = Network(lambda x: x)
    network.forward = network.body.forward
    with pytest.raises(ValueError, match="the network did not run it"):
        attach(network, "softmax")(INPUTS)
    model = attach(Network(lambda x: torch.as_tensor(x.detach().numpy() + 1)), "softmax")
    with pytest.raises(ValueError, match="output does not come from it"):
        model(INPUTS)


def test_a_second_classifier_is_refused_whether_shapes_fit_or_not() -> None:
    class Distilled(Network):
        def __init__(self, classes: int) -> None:
            super().__init__(lambda x: x)
            self.fc, self.other = nn.Linear(D, classes), nn.Linear(D, classes)

        def forward(self, x: Tensor) -> Tensor:
            features = self.body(x)
            return (self.fc(features) + self.other(features)) / 2

    with pytest.raises(ValueError, match=r"fails behind layer 'fc' .* its 6 features") as caught:
        attach(Distilled(K), "softmax")(INPUTS)
    assert "must match" in str(caught.value)
    with pytest.raises(ValueError, match="goes through add, "):
        attach(Distilled(D), "softmax")(INPUTS)


def test_an_error_before_the_layer_stays_as_it_is() -> None:
    model = attach(Network(lambda x: x), "softmax")
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        model(torch.zeros(2, 3))


def test_a_softmax_in_one_mode_only_is_found_in_that_mode() -> None:
    class Served(Network):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits if self.training else logits.softmax(-1)

    model = attach(Served(lambda x: x), "softmax")
    model(INPUTS)
    with pytest.raises(ValueError, match="goes through softmax"):
        model.eval()(INPUTS)


@pytest.mark.parametrize(
    "last", [nn.Softmax(-1), nn.LogSoftmax(-1), nn.Sigmoid(), nn.Linear(K, 2), nn.BatchNorm1d(K)]
)
def test_a_layer_behind_in_a_sequential_is_refused_at_once(last: nn.Module) -> None:
    network = nn.Sequential(nn.Linear(8, D), nn.Sequential(nn.ReLU(), nn.Linear(D, K)), last)
    kind = type(last).__name__
    with pytest.raises(
        ValueError, match=re.escape(f"'1.1' must be the network's last; {kind} ('2")
    ):
        attach(network, "softmax", layer="1.1")
    assert isinstance(network[1][1], nn.Linear)


def test_layers_that_only_reshape_may_stand_behind() -> None:
    network = nn.Sequential(nn.Linear(8, K), nn.Identity(), nn.Flatten(0, 1)).eval()
    expected = network(INPUTS).log_softmax(-1)
    torch.testing.assert_close(attach(network, "softmax").eval()(INPUTS), expected)


@pytest.mark.parametrize("training", [True, False])
def test_auxiliary_outputs_are_not_lost_in_silence(training: bool) -> None:
    output = namedtuple("output", "logits aux_logits")

    class Inception(Network):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return output(logits, logits) if self.training else logits

    model = attach(Inception(lambda x: x), "softmax").train(training)
    if training:
        with pytest.raises(TypeError, match=r"got output\. Auxiliary outputs .* aux_logits=False"):
            model(INPUTS)
    else:
        assert model(INPUTS).shape == (5, 3, K)


def test_a_plain_classifier_is_not_looked_at() -> None:
    backbone = nn.Sequential(nn.Linear(8, D), nn.Softmax(-1))
    assert Classifier(backbone, Softmax(D, K)).eval()(INPUTS).shape == (5, 3, K)


# -- the look itself ------------------------------------------------------------------------------


class Busy(Network):
    """Draws, counts its passes and keeps batch statistics."""

    def __init__(self) -> None:
        super().__init__(lambda x: x[:, 0])
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("passes", torch.zeros(()))
        self.pressed = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.pressed += 1
        return super().forward(F.dropout(self.norm(x), 0.5, self.training))


def test_the_first_pass_is_one_pass_bit_for_bit_that_of_a_network_not_looked_at() -> None:
    looked_at = attach(Busy(), "dropmax")
    plain = Classifier(copy.deepcopy(looked_at.backbone), copy.deepcopy(looked_at.head))
    target = torch.arange(5) % K
    results = []
    for model in (looked_at, plain):
        torch.manual_seed(1)
        loss = model(INPUTS, target=target).loss
        loss.backward()
        gradients = [p.grad for p in model.parameters()]
        results.append((loss, torch.rand(3), *gradients, *model.backbone.state_dict().values()))
        assert model.backbone.pressed == 1
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not looked_at.backbone.fc._forward_hooks


def test_a_mode_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = attach(Network(lambda x: x), "softmax")
    looks = []
    judge = model._after._judge
    monkeypatch.setattr(model._after, "_judge", lambda *args: looks.append(judge(*args)))
    for training in (True, True, False, True, False):
        model.train(training)(INPUTS)
    assert len(looks) == 2


def test_nothing_is_added_to_the_state() -> None:
    model = attach(Network(lambda x: x), "softmax")
    names = {"backbone.body.0.weight", "backbone.body.0.bias"}
    names |= {"head.classifier.weight", "head.classifier.bias"}
    assert set(model.state_dict()) == names
    assert [type(m).__name__ for m in model.children()] == ["Network", "Softmax"]


def test_copies_and_pickles_are_looked_at_as_well() -> None:
    model = attach(Network(torch.sigmoid), "softmax")
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for again in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        with pytest.raises(ValueError, match="goes through sigmoid"):
            again(INPUTS)


def test_meta_tensors_and_empty_batches_pass_and_leave_the_look_for_later() -> None:
    model = attach(Network(torch.sigmoid), "softmax")
    assert model(INPUTS[:0]).shape == (0, 3, K)
    assert copy.deepcopy(model).to("meta")(INPUTS.to("meta")).shape == (5, 3, K)
    with pytest.raises(ValueError, match="goes through sigmoid"):
        model(INPUTS)


@pytest.mark.parametrize("before", [True, False], ids=["after a pass", "fresh"])
def test_an_attached_network_compiles_as_one_graph_and_exports(before: bool) -> None:
    model = attach(Network(lambda x: x.mean(1)), "dropmax").eval()
    expected = copy.deepcopy(model)(INPUTS)
    if before:
        model(INPUTS)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(INPUTS), expected)
    for strict in (True, False):
        exported = torch.export.export(model, (INPUTS,), strict=strict).module()
        torch.testing.assert_close(exported(INPUTS), expected)
    single = {n: p.detach() for n, p in model.named_parameters()}
    mapped = torch.vmap(lambda x: torch.func.functional_call(model, single, (x[None],))[0])
    torch.testing.assert_close(mapped(INPUTS), expected)


def test_a_network_with_a_compiled_part_is_looked_at_uncompiled() -> None:
    network = Network(torch.sigmoid)
    network.body.compile(backend="eager")
    network.tail = torch.compile(torch.sigmoid, backend="eager", fullgraph=True)
    with pytest.raises(ValueError, match="goes through sigmoid"):
        attach(network, "softmax")(INPUTS)


def test_recomputed_activations_are_those_of_the_first_pass() -> None:
    class Checkpointed(Network):
        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)

    results = []
    for kind in (Network, Checkpointed):
        model = attach(kind(lambda x: x.mean(1)), "softmax")
        model(INPUTS, target=torch.arange(5) % K).loss.backward()
        results.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*results)


def test_class_indices_instead_of_features_are_refused_by_the_head() -> None:
    with pytest.raises(TypeError, match="features must have a floating-point dtype"):
        attach(Network(lambda x: x.argmax(-1)), "softmax")(INPUTS)


def test_nan_features_do_not_hide_in_an_error_about_the_layer() -> None:
    model = attach(Network(lambda x: x), "softmax")
    found = model(torch.full_like(INPUTS, torch.nan))
    assert found.isnan().all()
