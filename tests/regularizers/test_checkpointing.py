"""Regularizers under activation checkpointing, which runs them a second time in backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lastlayer.regularizers import REGULARIZERS, Disout, Regularizer, build_regularizer

OPTIONS = {"variational-dropout": {"num_features": 3, "num_examples": 50}, "cutout": {"length": 2}}
OPTIONS["concrete-dropout"] = OPTIONS["variational-dropout"]


def build(name: str, generator: torch.Generator | None = None) -> Regularizer:
    return build_regularizer(name, p=0.5, generator=generator, **OPTIONS.get(name, {}))


def features() -> Tensor:
    return torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(1)) + 1.0


def outputs_and_gradient(layer: Regularizer, reentrant: bool | None) -> list[Tensor]:
    """Two calls in a step, each behind a layer whose gradient needs what it saved."""
    torch.manual_seed(0)
    x = features().requires_grad_()

    def part(value: Tensor) -> Tensor:
        return layer(value).square()

    def call(value: Tensor) -> Tensor:
        return (
            part(value) if reentrant is None else checkpoint(part, value, use_reentrant=reentrant)
        )

    outputs = [call(x), call(2.0 * x)]
    sum(out.sum() for out in outputs).backward()
    return [*outputs, x.grad]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_torchs_generator_gives_the_gradients_without_checkpointing(name, reentrant):
    layer = build(name)
    plain = outputs_and_gradient(layer, None)
    for own, expected in zip(outputs_and_gradient(layer, reentrant), plain, strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_generator_of_its_own_is_refused_in_the_recomputation(name, reentrant):
    generator = torch.Generator().manual_seed(0)
    layer = build(name, generator)
    outputs_and_gradient(layer, None)  # a step without checkpointing
    after_step = generator.get_state()
    generator.manual_seed(0)
    with pytest.raises(RuntimeError, match="generator must be None where a backward pass"):
        outputs_and_gradient(layer, reentrant)
    assert torch.equal(generator.get_state(), after_step)  # nothing was drawn a second time


def test_disout_as_released_and_its_signs_refuse_too():
    for released in (False, True):
        generator = torch.Generator().manual_seed(0)
        layer = Disout(0.5, block_size=3, released=released, generator=generator)
        layer.follow(torch.nn.Conv2d(3, 2, 1))
        with pytest.raises(RuntimeError, match="generator must be None"):
            outputs_and_gradient(layer, False)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_in_evaluation_a_generator_is_no_obstacle(name):
    layer = build(name, torch.Generator()).eval()
    plain = outputs_and_gradient(layer, None)
    assert torch.equal(outputs_and_gradient(layer, False)[-1], plain[-1])
