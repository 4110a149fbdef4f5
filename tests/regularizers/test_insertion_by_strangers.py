"""Insertion into networks as strangers have them: odd forwards, modes, wrappers, compiled code."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lastlayer.regularizers import Dropout, insert, inserted

X = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))


def share_of_zeros(out: torch.Tensor) -> float:
    return float((out == 0).float().mean())


class Chain(nn.Module):
    """A forward that runs over all children, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for child in self.children():
            x = child(x)
        return x


class Branches(Chain):
    """A forward that runs all children side by side."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([child(x) for child in self._modules.values()]).sum(0)


@pytest.mark.parametrize("make", [Chain, Branches])
@pytest.mark.parametrize("position", ["after", "before"])
def test_a_forward_over_all_children_is_refused_not_regularized_twice(make, position):
    network = nn.Sequential(make(), nn.Linear(16, 3))
    insertion = insert(network, "dropout", where="0", p=0.5, position=position)
    with pytest.raises(RuntimeError, match=r"(behind|before) '0'.*runs over all children"):
        network(X)
    insertion.remove()
    with pytest.raises(RuntimeError, match="runs over all children"):
        insert(network, "dropout", where="0", p=0.5, position=position, example=X)
    assert list(inserted(network)) == []
    network(X)


def test_behind_its_last_child_such_a_forward_drops_once():
    network = nn.Sequential(Chain())
    insert(network, "dropout", where="0.b", p=0.5)
    assert share_of_zeros(network(X)) == pytest.approx(0.5, abs=0.02)


def test_after_removal_a_regularizer_can_be_called_by_hand():
    network = layers()
    insertion = insert(network, "dropout", where="0", p=0.5)
    regularizer = insertion.places[0].regularizer
    with pytest.raises(RuntimeError, match="called by hand"):
        regularizer(X)
    insertion.remove()
    assert share_of_zeros(regularizer(X)) == pytest.approx(0.5, abs=0.02)


def test_another_module_can_take_the_place_of_an_inserted_one():
    network = layers()
    insertion = insert(network, "dropout", where="0", p=0.5)
    for other, share in ((nn.Dropout(0.9), 0.9), (Dropout(0.9), 0.9), (nn.Identity(), 0.0)):
        network[0].regularizer = other
        assert share_of_zeros(network[0](X)) == pytest.approx(share, abs=0.02)
    del network[0].regularizer
    with pytest.raises(RuntimeError, match="child 'regularizer' is gone; call remove"):
        network(X)
    insertion.remove()
    assert torch.equal(network(X), layers()(X))


def test_regularizers_take_the_mode_of_their_module():
    network = layers()
    network[0].eval()
    insertion = insert(network, "dropout", where="*", p=0.5)
    assert [place.regularizer.training for place in insertion.places] == [False, True]
    network.eval()
    again = insert(network, "dropout", where="*", p=0.5)
    assert not any(place.regularizer.training for place in again.places)
    assert torch.equal(network(X), layers()(X))


def test_regularizers_stand_on_the_device_of_their_module():
    with torch.device("meta"):
        network = layers()
    insert(network, "concrete-dropout", where="0", num_examples=10)
    assert {
        tensor.device.type
        for tensor in network.state_dict(keep_vars=True).values()
        if isinstance(tensor, nn.Parameter)
    } == {"meta"}
    insert(nn.Sequential(nn.ReLU()), "dropout", where="0")  # where there are no weights


def test_what_an_insertion_has_put_there_is_no_place_for_the_next():
    network = layers()
    insert(network, "dropout", where="**", p=0.5)
    second = insert(network, "dropout", where="**", p=0.5)
    assert [place.name for place in second.places] == ["0", "1"]
    assert share_of_zeros(network[0](X)) == pytest.approx(0.75, abs=0.02)


def test_parametrizations_are_no_places():
    network = nn.utils.parametrizations.weight_norm(layers()[0])
    network = nn.Sequential(network)
    places = insert(network, "dropout", where="**", p=0.5).places
    assert [place.name for place in places] == ["0"]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, where a graph breaks
@pytest.mark.parametrize("way", ["outside", "through", "inplace", "child", "root"])
def test_a_network_that_was_compiled_before_takes_regularizers_and_gives_them_back(way):
    torch._dynamo.reset()
    network: nn.Module = layers()
    where, call = "1", network
    if way == "inplace":
        network.compile(backend="eager")
    elif way == "child":
        network[1] = torch.compile(network[1], backend="eager")
    else:
        call = torch.compile(network, backend="eager")
        if way != "outside":
            network, where = call, "**.1" if way == "through" else ""
    call(X)
    insertion = insert(network, "dropout", where=where, p=0.5)
    assert share_of_zeros(call(X)) == pytest.approx(0.5, abs=0.02)
    insertion.remove()
    assert torch.equal(call(X), layers()(X))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_networks_of_torch_jit_are_refused_and_stay_as_they_were():
    network = layers()
    network[1] = torch.jit.trace(network[1], X)
    with pytest.raises(TypeError, match="'1' is a TopLevelTracedModule, which takes no hooks"):
        insert(network, "dropout", where="*", p=0.5)
    assert list(inserted(network)) == []
    with pytest.raises(TypeError, match="insert before"):
        insert(torch.jit.script(layers()), "dropout", where="1", p=0.5)


def test_the_second_name_of_a_shared_module_is_told():
    shared = nn.Linear(16, 16)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    with pytest.raises(ValueError, match="'2' is the same module as '0'"):
        insert(network, "dropout", where="2", p=0.5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_of_network_and_plan_is_undone_alone_in_any_order(copied):
    network = layers()
    plans = [insert(network, "dropout", where="0", p=0.5) for _ in range(2)]
    twin, twins_plans = copied((network, plans))
    for plan, share in zip(twins_plans, (0.5, 0.0), strict=True):  # the first one first
        plan.remove()
        assert share_of_zeros(twin[0](X)) == pytest.approx(share, abs=0.02)
    assert share_of_zeros(network[0](X)) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((layers(), Dropout(0.5), "0"), TypeError, "regularizer must be a name"),
        ((layers(), "dropout", 0), TypeError, "where must be a name or pattern"),
        ((layers(), "dropout", []), ValueError, "where must name at least one module"),
        ((torch.relu, "dropout", "0"), TypeError, "model must be an nn.Module"),
    ],
)
def test_arguments_of_another_kind_are_named(arguments, error, match):
    model, regularizer, where = arguments
    with pytest.raises(error, match=match):
        insert(model, regularizer, where=where)


def test_a_missing_number_of_examples_is_named():
    with pytest.raises(ValueError, match=r"'concrete-dropout' needs num_examples$"):
        insert(nn.Sequential(nn.Linear(3, 4)), "concrete-dropout", where="0")
