"""What another package adds: one class and one entry point each, and every command knows it."""

from importlib.metadata import EntryPoint

import pytest
import torch

from lastlayer import registry
from lastlayer.cli.app import app
from lastlayer.heads import Softmax
from lastlayer.regularizers import Dropout
from lastlayer.training import RunDirectory
from lastlayer.training.fit import load_classifier

THEIRS = """
import torch

from lastlayer.data.sources import Examples, Raw
from lastlayer.heads import Softmax
from lastlayer.models.base import Backbone
from lastlayer.regularizers import Dropout


class TheirHead(Softmax):
    pass


class TheirRegularizer(Dropout):
    pass


class TheirBackbone(Backbone):
    def __init__(self, input_shape, *, width=5):
        layers = {"linear": torch.nn.Linear(input_shape[0], width), "relu": torch.nn.ReLU()}
        super().__init__(input_shape, out_features=width, layers=layers)


def their_data(data_dir=None, *, shift=0.0):
    target = torch.arange(60) % 3
    generator = torch.Generator().manual_seed(0)
    inputs = torch.eye(3)[target] + 0.1 * torch.randn(60, 3, generator=generator) + shift
    part = Examples(inputs, target)
    return Raw(part, part, ("a", "b", "c"), "vector")
"""
ENTRIES = {
    "lastlayer.heads": ("their-head", "TheirHead"),
    "lastlayer.regularizers": ("their-regularizer", "TheirRegularizer"),
    "lastlayer.backbones": ("their-backbone", "TheirBackbone"),
    "lastlayer.data": ("their-data", "their_data"),
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with one part of every kind; found in this process alone."""
    (tmp_path / "their_package.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    entries = [
        EntryPoint(name, f"their_package:{part}", group) for group, (name, part) in ENTRIES.items()
    ]
    monkeypatch.setattr(
        registry, "entry_points", lambda *, group: [e for e in entries if e.group == group]
    )


SMALL = ("--steps", 4, "--batch-size", 10, "--seeds", 1, "--jobs", 1, "--model", "their-backbone")
PARTS = ("--data", "their-data", "--set", "data.options.shift=1.0", "data.validation_size=0")


def test_a_comparison_takes_a_head_regularizer_backbone_and_data_of_another_package(
    installed, tmp_path, lastlayer
):
    variant = "their-head:label_smoothing=0.1+their-regularizer:where=layers.relu,p=0.25"
    words = ("--heads", f"softmax;{variant}", "--out", tmp_path / "out")
    printed = lastlayer("compare", *words, *SMALL, *PARTS)
    assert printed.status == 0, printed.err
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert all(f"| {row} | 1 |" in markdown for row in ("softmax", variant))
    (path,) = (tmp_path / "out").glob("their-head*")
    classifier = load_classifier(RunDirectory(path))
    assert type(classifier.head).__name__ == "TheirHead"
    assert isinstance(classifier.head, Softmax)
    assert classifier.head.label_smoothing == 0.1
    (regularizer,) = (m for m in classifier.modules() if isinstance(m, Dropout))
    assert (type(regularizer).__name__, regularizer.p) == ("TheirRegularizer", 0.25)
    assert classifier.backbone.out_features == 5
    assert RunDirectory(path).summary()["class_names"] == ["a", "b", "c"]


def test_learning_over_tasks_takes_them_too(installed, tmp_path, lastlayer):
    words = ("--methods", "their-head+distillation", "--out", tmp_path / "out", "--memory", 2)
    tasks = ("--base", 2, "--later-tasks", 1)
    printed = lastlayer("learn", *words, *tasks, *SMALL, *PARTS)
    assert printed.status == 0, printed.err
    assert "| their-head+distillation | 1 |" in (tmp_path / "out" / "comparison.md").read_text()


def test_they_are_listed_and_their_names_are_near(installed, lastlayer):
    listed = lastlayer("list").out
    for name, part in ENTRIES.values():
        assert f"{name} " in listed
        assert f"from their_package:{part}" in listed
    printed = lastlayer("compare", "--heads", "their-haed")
    assert "unknown head 'their-haed'. Did you mean 'their-head'?" in printed.err


def test_a_command_is_a_function_that_the_application_is_given(lastlayer):
    def count_up(*, to: int = 3) -> None:
        """Count."""
        print(*range(1, to + 1))

    app.command(count_up)
    try:
        assert lastlayer("count-up", "--to", 4).out == "1 2 3 4\n"
        assert "count-up" in lastlayer("--help").out
    finally:
        del app["count-up"]
    assert lastlayer("count-up").status == 2


def test_their_data_are_what_they_say():
    """The data of this file can be learned: their classes are apart."""
    space = {}
    exec(THEIRS, space)
    raw = space["their_data"](shift=1.0)
    assert torch.equal(raw.train.inputs.argmax(-1), raw.train.target)
