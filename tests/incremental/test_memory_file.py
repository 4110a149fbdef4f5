"""The memory's file: the same bits back, and nothing else taken for it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lastlayer.incremental import RehearsalMemory, memory_file
from lastlayer.incremental.exemplar_choice import SELECTIONS

ORDER = ["cat", "dog", "7", 7]
BUDGETS = [{"per_class": 3}, {"total": 7}, {"total": 0}, None]


def data(*labels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.tensor([label for label in labels for _ in range(9)])
    inputs = torch.randn(len(target), 2, 3, generator=generator)
    return inputs, target, torch.randn(len(target), 4, generator=generator)


def build(budget, selection="herding", seed=5):
    if budget is None:
        return RehearsalMemory.unlimited()
    return RehearsalMemory(**budget, selection=selection, seed=seed)


def same(one, other):
    return (
        repr(one) == repr(other)
        and one.inputs.dtype == other.inputs.dtype
        and all(
            getattr(one, name).equal(getattr(other, name))
            for name in ("inputs", "target", "arrival")
        )
        and one.num_seen == other.num_seen
    )


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_saved_memory_comes_back_and_goes_on_to_the_same_bits(tmp_path, budget, selection):
    path, memory = tmp_path / "memory.safetensors", build(budget, selection)
    memory.save(path, class_order=ORDER)
    assert same(memory, RehearsalMemory.load(path))
    for labels in ((0, 1), (1, 2), (3,)):
        held = torch.ones(len(memory), 4)
        memory.update(*data(*labels), memory_features=held)
        memory.save(path, class_order=ORDER)
        loaded = RehearsalMemory.load(str(path), class_order=ORDER)
        assert same(memory, loaded)
        content = path.read_bytes()
        loaded.save(path, class_order=ORDER)
        assert path.read_bytes() == content
        memory = loaded
    whole = build(budget, selection)
    for labels in ((0, 1), (1, 2), (3,)):
        whole.update(*data(*labels), memory_features=torch.ones(len(whole), 4))
    assert same(memory, whole)


@pytest.mark.parametrize("kind", ["ids", "tuple", "mapping"])
def test_tokens_and_several_inputs_come_back_with_their_dtypes(tmp_path, kind):
    x, target, features = data(0, 1)
    ids = torch.arange(18 * 4).reshape(18, 4)
    inputs = {"ids": ids, "tuple": (ids, x), "mapping": {"x": x, "ids": ids, "mask": ids > 5}}[kind]
    memory = RehearsalMemory(per_class=3)
    memory.update(inputs, target, features)
    memory.save(tmp_path / "memory", class_order=ORDER)
    loaded = RehearsalMemory.load(tmp_path / "memory")
    rows = memory_rows(memory)
    assert sorted(target[rows].tolist()) == [0, 0, 0, 1, 1, 1]
    for found in (memory, loaded):
        held = found.inputs
        if kind == "ids":
            pairs = [(held, ids)]
        elif kind == "tuple":
            assert isinstance(held, tuple)
            pairs = list(zip(held, inputs, strict=True))
        else:
            assert held.keys() == inputs.keys()
            pairs = [(held[name], part) for name, part in inputs.items()]
        for part, given in pairs:
            assert part.dtype == given.dtype
            assert part.equal(given[rows])
    other = {"mapping": (ids, x)}.get(kind, {"x": x})
    with pytest.raises(ValueError, match=r"inputs must be .* each, as those held"):
        loaded.update(other, target + 2, features)
    content = (tmp_path / "memory").read_bytes()
    loaded.save(tmp_path / "memory", class_order=ORDER)
    assert (tmp_path / "memory").read_bytes() == content


def memory_rows(memory):
    """Of which examples the exemplars are: the ids count up through the rows."""
    held = memory.inputs
    if not isinstance(held, torch.Tensor):
        held = held[0] if isinstance(held, tuple) else held["ids"]
    return held[:, 0] // 4


def test_a_file_of_one_tensor_is_as_it_was_before_there_were_several(path):
    """The names of the tensors, and nothing said of the inputs' kind."""
    with safe_open(path, framework="pt") as file:
        assert sorted(file.keys()) == ["arrival", "inputs", "target"]
        assert "inputs" not in json.loads(json.loads(file.metadata()["lastlayer"])["state"])


@pytest.fixture
def path(tmp_path):
    memory = build({"per_class": 3})
    memory.update(*data(0, 1))
    memory.save(tmp_path / "memory.safetensors", class_order=ORDER)
    return tmp_path / "memory.safetensors"


def test_only_the_file_is_left_in_its_folder(path):
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(path, size):
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"memory\.safetensors is truncated"):
        RehearsalMemory.load(path)


def test_any_changed_byte_is_noticed(path):
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"memory\.safetensors"):
            RehearsalMemory.load(path)
    path.write_bytes(content)
    RehearsalMemory.load(path)


def test_a_file_of_another_kind_or_none_is_refused(path):
    save_file({"inputs": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"memory\.safetensors .* another kind"):
        RehearsalMemory.load(path)
    save_file({"inputs": torch.ones(2)}, path, {"lastlayer": "[]"})
    with pytest.raises(ValueError, match="another kind"):
        RehearsalMemory.load(path)
    path.write_text("not a tensor in sight, but long enough")
    with pytest.raises(ValueError, match="truncated or no safetensors file"):
        RehearsalMemory.load(path)
    torch.save({"inputs": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="truncated or no safetensors file"):
        RehearsalMemory.load(path)
    with pytest.raises(FileNotFoundError, match=r"other\.safetensors is missing"):
        RehearsalMemory.load(path.with_name("other.safetensors"))


@pytest.mark.parametrize(
    ("order", "difference"),
    [
        (["dog", "cat", "7", 7], "at position 0 it has 'cat' where 'dog' was asked for"),
        (["cat", "dog", 7, "7"], "at position 2 it has '7' where 7 was asked for"),
        (["cat", "dog", "7"], "4 classes where 3 were asked for"),
        ([*ORDER, "owl"], "4 classes where 5 were asked for"),
    ],
)
def test_another_class_order_is_refused_with_the_first_difference(path, order, difference):
    with pytest.raises(ValueError, match=rf"memory\.safetensors is of another .*{difference}"):
        RehearsalMemory.load(path, class_order=order)


def test_a_class_order_may_hold_any_whole_numbers(tmp_path):
    memory = build({"total": 2})
    memory.save(tmp_path / "m", class_order=np.array([5, 3]))
    RehearsalMemory.load(tmp_path / "m", class_order=torch.tensor([5, 3]))
    RehearsalMemory.load(tmp_path / "m", class_order=[5, 3])


@pytest.mark.parametrize(
    ("order", "named"),
    [
        (["cat"], "label 1 is outside the 1 classes"),
        (["cat", "dog", "cat"], "'cat' twice"),
        (["cat", 1.5], r"whole numbers or strings; got 1\.5"),
    ],
)
def test_a_class_order_that_does_not_fit_is_refused_before_writing(path, order, named):
    content, memory = path.read_bytes(), RehearsalMemory.load(path)
    with pytest.raises(ValueError, match=rf"class_order.*{named}"):
        memory.save(path, class_order=order)
    assert path.read_bytes() == content


def forged(path, tensors=None, version=None, **state):
    """Write a file again with other content and the checksum of that."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["lastlayer"])
        held = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    held |= tensors or {}
    text = json.dumps(json.loads(about["state"]) | state)
    about |= {"state": text, "checksum": memory_file._checksum(text, held)}
    about["version"] = version or about["version"]
    save_file(held, path, {"lastlayer": json.dumps(about)})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": 2}, "version 2 of the format; this is 1"),
        ({"tensors": {"target": torch.tensor([0, 0, 0, 1, 1, 4])}}, "label 4 is outside the 4"),
        ({"tensors": {"target": torch.tensor([0, 0, 0, 1, 1, -1])}}, "label -1 is outside"),
        ({"tensors": {"target": torch.tensor([0, 0, 0, 1, 1, 2])}}, "1 examples of label 2, of 0"),
        ({"tensors": {"target": torch.tensor([0, 0, 0, 1, 1])}}, "shape"),
        ({"tensors": {"target": torch.zeros(6)}}, "int64"),
        ({"tensors": {"extra": torch.zeros(6)}}, "extra"),
        ({"num_seen": {"0": 3, "1": 2}}, "3 examples of label 1, of 2 that came"),
        ({"num_seen": {"0": 9, "1": 9, "4": 1}}, "label 4"),
        ({"class_order": ["cat"]}, "label 1 is outside the 1"),
        ({"inputs": "tuple"}, "it holds the tensors"),
        ({"inputs": "else"}, "it holds the tensors"),
    ],
)
def test_content_that_does_not_fit_together_is_refused(path, changes, named):
    forged(path)
    RehearsalMemory.load(path)
    forged(path, **changes)
    with pytest.raises(ValueError, match=rf"memory\.safetensors .*{named}"):
        RehearsalMemory.load(path)


def test_what_was_loaded_does_not_hang_on_the_file(path):
    memory = RehearsalMemory.load(path)
    before = memory.inputs.clone()
    path.write_bytes(b"")
    assert memory.inputs.equal(before)
