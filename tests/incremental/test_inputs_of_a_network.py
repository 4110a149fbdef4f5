"""Learners of networks that take tokens, several inputs or keywords."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lastlayer.incremental import IncrementalClassifier

N, WORDS, LENGTH = 80, 12, 5
GENERATOR = torch.Generator().manual_seed(0)
TARGET = torch.arange(N) % 4
IDS = torch.randint(WORDS, (N, LENGTH), generator=GENERATOR)
IDS[:, 0] = TARGET  # the word that tells
MASK = torch.randint(2, (N, LENGTH), generator=GENERATOR).bool()
MASK[:, 0] = True
METHODS = ("balanced", "icarl", "balanced-softmax+meta+memory:selection=random")


class Texts(nn.Module):
    """Tokens and, if there is one, their mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, 6)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        assert ids.dtype == torch.int64
        words = self.words(ids)
        return (words if mask is None else words * mask[..., None]).mean(1)


class Output(Texts):
    """As transformers' models: an object that carries what a removed last layer was given."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None):
        return type("Output", (), {"logits": super().forward(ids, mask)})()


def learned(inputs, backbone=None, method="balanced", tasks=((0, 1), (2, 3)), **options):
    chosen = {"memory": 3, "steps": 15} | options
    learner = IncrementalClassifier(method, backbone=backbone or Texts(), **chosen)
    for classes in tasks:
        own = torch.isin(TARGET, torch.tensor(classes))
        learner.learn(rows(inputs, own), TARGET[own])
    return learner


def rows(inputs, index):
    if isinstance(inputs, torch.Tensor):
        return inputs[index]
    if isinstance(inputs, tuple):
        return tuple(part[index] for part in inputs)
    return {name: part[index] for name, part in inputs.items()}


def bits(learner):
    return {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_a_tuple_and_a_name_are_learned_to_the_same_bits(method):
    first = learned(IDS, method=method)
    for inputs in ((IDS,), {"ids": IDS}):
        other = learned(inputs, method=method)
        assert same(bits(first), bits(other))
        log_prob = other.predict_log_prob(inputs)
        assert log_prob.equal(first.predict_log_prob(IDS))
        assert other.score(inputs, TARGET) == first.score(IDS, TARGET)
    assert first.memory.inputs.dtype == torch.int64


def test_several_inputs_are_learned_and_their_exemplars_are_whole_rows():
    learner = learned({"ids": IDS, "mask": MASK})
    weight = learner.model.backbone.words.weight.detach()
    bags = (nn.functional.one_hot(IDS, WORDS) * MASK[..., None]).sum(1).float() / LENGTH
    expected = learner.model.head.log_prob(bags @ weight).detach()
    found = learner.predict_log_prob({"mask": MASK, "ids": IDS})
    torch.testing.assert_close(found, expected)
    held = learner.memory.inputs
    for row, mask in zip(held["ids"], held["mask"], strict=True):
        assert bool(((row == IDS).all(1) & (mask == MASK).all(1)).any())
    assert held["mask"].dtype == torch.bool
    positional = learned((IDS, MASK))
    assert same(bits(learner), bits(positional))


@pytest.mark.parametrize("inputs", [IDS, (IDS, MASK), {"ids": IDS, "mask": MASK}])
def test_a_saved_learner_of_tokens_goes_on_to_the_same_bits(tmp_path, inputs):
    half = learned(inputs, tasks=((0, 1),))
    half.save(tmp_path / "half")
    loaded = IncrementalClassifier.load(tmp_path / "half", backbone=Texts())
    late = torch.isin(TARGET, torch.tensor([2, 3]))
    for learner in (half, loaded):
        learner.learn(rows(inputs, late), TARGET[late])
    assert same(bits(half), bits(loaded))
    assert half.predict(inputs).equal(loaded.predict(inputs))
    with pytest.raises(ValueError, match="as those learned; got"):
        loaded.predict(rows(inputs, slice(3))[:, :2] if inputs is IDS else IDS)


def test_a_loader_and_its_data_set_are_learned_as_their_tensors():
    expected = bits(learned(IDS, tasks=((0, 1, 2, 3),)))
    pairs = TensorDataset(IDS, TARGET)
    named = [{"ids": row, "labels": int(label)} for row, label in zip(IDS, TARGET, strict=True)]
    for data in (pairs, DataLoader(pairs, 7), named, DataLoader(named, 7)):
        learner = IncrementalClassifier(backbone=Texts(), memory=3, steps=15).learn(data)
        assert same(bits(learner), expected)
        assert 0.0 <= learner.score(data) <= 1.0


def test_what_a_network_returns_beside_features_is_taken_as_attach_takes_it():
    assert same(bits(learned({"ids": IDS}, Output())), bits(learned({"ids": IDS})))


def test_whole_numbers_are_floats_where_nothing_looks_them_up():
    """As before: pixels or counts given as integers."""
    plain = nn.Linear(LENGTH, 6)
    assert same(bits(learned(IDS, plain)), bits(learned(IDS.float(), plain)))


def test_several_inputs_need_a_network_of_ones_own():
    with pytest.raises(ValueError, match=r"takes one tensor; .* several inputs \(ids: int64"):
        learned({"ids": IDS}, "mlp")
