"""Draws and label counts under activation checkpointing: those of a run without it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lastlayer.functional.dropmax import concrete_log_mask
from lastlayer.functional.meta_sampling import gumbel_noise
from lastlayer.heads import ClassDropout, DropMax, MixedDropMax, SampledSoftmax
from lastlayer.longtail import row_losses
from lastlayer.losses import ClassDropoutLoss, SampledSoftmaxLoss
from lastlayer.training.term_gradients import term_gradients

D, K = 4, 6
CHUNKS = [[0, 0, 0, 1, -100], [2, 2, 5, 0, 0], [3, 3, 3, 3, 1]]
COUNTED = [6, 3, 3, 5, 1, 2]  # and 1 each before the first label
Losses = Callable[[Tensor, Tensor], Tensor]


def features() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(len(chunk), D, generator=generator).double() for chunk in CHUNKS]


def learned_head() -> tuple[torch.nn.Module, Losses, str]:
    head = SampledSoftmax(D, K, num_samples=2, proposal="learned").double()
    return head, lambda x, y: head(x, y).loss, "label_count"


def learned_loss() -> tuple[torch.nn.Module, Losses, str]:
    linear, loss = torch.nn.Linear(D, K).double(), SampledSoftmaxLoss(2, "learned", K)
    module = torch.nn.ModuleList([linear, loss])
    return module, lambda x, y: loss(linear(x), y), "1.label_counts"


def all_at_once(losses: list[Tensor]) -> None:
    torch.stack(losses).sum().backward()


def one_after_the_other(losses: list[Tensor]) -> None:
    for loss in losses:
        loss.backward()


@pytest.mark.parametrize("backward", [all_at_once, one_after_the_other])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("make", [learned_head, learned_loss])
def test_chunks_under_checkpointing_learn_and_count_as_without(make, reentrant, backward):
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        module, function, counts = make()
        for _ in range(2):  # the second time from counts that differ
            losses = []
            for x, chunk in zip(features(), CHUNKS, strict=True):
                arguments = x.requires_grad_(), torch.tensor(chunk)
                if checkpointed:
                    losses.append(checkpoint(function, *arguments, use_reentrant=reentrant))
                else:
                    losses.append(function(*arguments))
            backward(losses)
        assert module.state_dict()[counts].tolist() == [2 * n - 1 for n in COUNTED]
        found.append([p.grad for p in module.parameters()])
    for plain, own in zip(*found, strict=True):
        torch.testing.assert_close(own, plain)  # gradients are added up in another order


def test_nothing_but_a_training_step_counts_labels():
    head = SampledSoftmax(D, K, proposal="learned")
    x, target = features()[0], torch.tensor([0, 0, 0, 1, 2])
    head(x, target)
    row_losses(head, x, target)
    term_gradients(head, x, target)
    with torch.no_grad():
        head(x, target)
    assert head.label_count.tolist() == [1] * K
    row_losses(head, x, target).mean().backward()  # this is one
    assert head.label_count.tolist() == [4, 2, 2, 1, 1, 1]


def test_a_graph_that_is_kept_counts_its_labels_once():
    head = SampledSoftmax(D, K, proposal="learned")
    loss = head(features()[0], torch.tensor(CHUNKS[0])).loss
    loss.backward(retain_graph=True)
    loss.backward()
    assert head.label_count.tolist() == [4, 2, 1, 1, 1, 1]


def test_a_copy_of_a_head_draws_from_its_own_counts():
    head = SampledSoftmax(D, K, num_samples=1, proposal="learned", reduction="none")
    x, target = torch.zeros(500, D), torch.zeros(500, dtype=torch.int64)
    head(x, target)
    twin = copy.deepcopy(head)
    twin.label_count[5] = 10**9
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        twin.classifier.weight.zero_()
        twin.classifier.bias.zero_()
        rows = twin(x, target, generator=generator).loss
    # Of equal logits the loss is the correction alone: one value, as class 5 is always drawn.
    assert len(rows.unique()) == 1


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: DropMax(D, K),
        lambda: DropMax(D, K, estimator="concrete", num_samples=2),
        lambda: MixedDropMax(D, K),
        lambda: ClassDropout(D, K),
        lambda: SampledSoftmax(D, K, num_samples=2),
        lambda: SampledSoftmax(D, K, num_samples=2, proposal="learned"),
    ],
)
def test_a_heads_own_generator_is_refused_where_the_forward_is_run_again(make, reentrant):
    torch.manual_seed(0)
    head, generator = make(), torch.Generator().manual_seed(0)
    x, target = features()[0].requires_grad_(), torch.tensor(CHUNKS[0])
    loss = checkpoint(
        lambda x: head(x, target, generator=generator).loss, x, use_reentrant=reentrant
    )
    with pytest.raises(RuntimeError, match="generator must be None where a backward pass runs"):
        loss.backward()


@pytest.mark.parametrize("noise", ["given", "torch's"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", [DropMax, ClassDropout, SampledSoftmax])
def test_noise_that_is_given_and_torchs_own_generator_are_recomputed(kind, reentrant, noise):
    torch.manual_seed(0)
    head, target = kind(D, K), torch.tensor(CHUNKS[0])
    given = torch.rand((1, 5, K) if kind is DropMax else (5, K)) if noise == "given" else None
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(1)
        x = features()[0].requires_grad_()
        if checkpointed:
            loss = checkpoint(
                lambda x: head(x, target, noise=given).loss, x, use_reentrant=reentrant
            )
        else:
            loss = head(x, target, noise=given).loss
        loss.backward()
        found.append(x.grad)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, g: ClassDropoutLoss(0.5)(x, torch.tensor([0, 1]), generator=g),
        lambda x, g: SampledSoftmaxLoss(2)(x, torch.tensor([0, 1]), generator=g),
        lambda x, g: concrete_log_mask(x, generator=g).sum(),
        lambda x, g: (x * gumbel_noise(x, generator=g)).exp().sum(),
    ],
)
def test_losses_and_functions_refuse_their_own_generator_there_too(function):
    generator = torch.Generator().manual_seed(0)
    x = torch.ones(2, K, requires_grad=True)
    loss = checkpoint(function, x, generator, use_reentrant=False)
    with pytest.raises(RuntimeError, match="generator must be None"):
        loss.backward()
