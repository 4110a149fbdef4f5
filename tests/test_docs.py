"""What losses and heads share is written once, and stands whole in their docstrings."""

import inspect
import re

import pytest
import torch
import torch.nn.functional as F

from lastlayer import functional, heads, losses
from lastlayer.losses import ClassificationLoss

LOSSES = [getattr(losses, name) for name in losses.__all__]
LOSS_FUNCTIONS = [
    functional.balanced_softmax_loss,
    functional.class_dropout_loss,
    functional.entmax15_loss,
    functional.entmax_loss,
    functional.ldam_loss,
    functional.masked_cross_entropy,
    functional.pc_softmax_loss,
    functional.sampled_softmax_loss,
    functional.sparsemax_loss,
]
HEADS = [
    part
    for part in map(heads.__dict__.get, heads.__all__)
    if isinstance(part, type) and issubclass(part, heads.Head)
]
SHARED = ("weight", "ignore_index", "reduction", "label_smoothing")


def explained(part: object) -> list[str]:
    """Return the names that the section ``Args`` of a docstring explains."""
    section = re.split(r"\n *(?:Returns|Raises|Attributes|Example|Examples):\n", part.__doc__)[0]
    return re.findall(r"^ +\**(\w+): ", section.split("Args:\n")[1], re.MULTILINE)


@pytest.mark.parametrize("part", [*LOSSES, *LOSS_FUNCTIONS], ids=lambda part: part.__name__)
def test_a_loss_explains_each_of_its_arguments_once(part):
    assert sorted(explained(part)) == sorted(inspect.signature(part).parameters)


@pytest.mark.parametrize("part", [*LOSSES, *LOSS_FUNCTIONS], ids=lambda part: part.__name__)
def test_a_loss_shows_the_arguments_and_defaults_of_torch(part):
    torchs = inspect.signature(F.cross_entropy).parameters
    shown = inspect.signature(part).parameters
    refused = {"label_smoothing", "weight"} - set(shown)
    assert {name: shown[name].default for name in SHARED if name not in refused} == {
        name: torchs[name].default for name in SHARED if name not in refused
    }


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_a_head_explains_what_every_head_takes_and_what_it_takes_itself(head):
    taken = {*inspect.signature(heads.Head).parameters, *inspect.signature(head).parameters}
    names = explained(head)
    # MixedDropMax and the like refer to the head that they extend for the rest.
    if "kwargs" not in names:
        assert set(names) >= taken - {"kwargs"}
    assert len(names) == len(set(names))


def test_an_argument_that_a_loss_refuses_is_said_to_be_refused():
    assert "label_smoothing: refused unless 0: the margin is" in losses.LDAMLoss.__doc__
    assert "label_smoothing: share of the uniform" in losses.BalancedSoftmaxLoss.__doc__
    assert "label_smoothing: refused unless 0: the margin is" in heads.LDAM.__doc__


def test_no_place_for_a_shared_text_is_left_empty():
    for room in (functional, heads, losses):
        for name in room.__all__:
            text = getattr(room, name).__doc__ or ""
            assert not re.search(r"^ +(?:\**\w+: )?\{[^{}\\]+\}$", text, re.MULTILINE), name


def test_braces_in_the_docstring_of_a_strangers_loss_stay():
    class Strange(ClassificationLoss):
        """Set notation.

        Args:
            x: {0, 1}
            **arguments: {arguments}
        """

    assert "x: {0, 1}" in Strange.__doc__
    assert "ignore_index: class index" in Strange.__doc__


def test_an_unknown_argument_of_a_loss_is_refused_by_its_name():
    with pytest.raises(TypeError, match="smoothing"):
        losses.SparsemaxLoss(smoothing=0.1)
    with pytest.raises(TypeError, match="label_smoothing"):
        functional.ldam_loss(torch.zeros(1, 2), torch.tensor([0]), [1, 1], label_smoothing=0.1)
