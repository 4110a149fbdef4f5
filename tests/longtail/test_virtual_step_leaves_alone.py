"""What a look at losses, or a meta step, leaves as it was: modes, statistics, other threads."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lastlayer.heads import Classifier, DropMax, Softmax
from lastlayer.information import ContrastModel
from lastlayer.longtail import MetaSampler, row_losses, virtual_meta_loss

K, B = 3, 12
TARGET = torch.arange(B) % K
INPUTS = torch.randn(B, 6, generator=torch.Generator().manual_seed(0))


def frozen():
    """A classifier in training whose backbone is in evaluation, but for a last layer."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=1.0), nn.Dropout(0.5), nn.Linear(8, 5)
    )
    classifier = Classifier(backbone, Softmax(5, K)).train()
    backbone[1].running_mean.fill_(0.3)
    backbone.eval()
    backbone[3].train()
    return classifier


def meta_step(module):
    sampler = MetaSampler([5, 4, 3])
    drawn = sampler.draw(B)
    sampler.meta_step(module, INPUTS, drawn.classes, drawn.weights, INPUTS, TARGET, lr=0.1)


LOOKS = {
    "row losses": lambda module: row_losses(module, INPUTS, TARGET),
    "meta step": meta_step,
    "virtual loss": lambda module: virtual_meta_loss(
        module, INPUTS, TARGET, torch.ones(B, requires_grad=True), INPUTS, TARGET, lr=0.1
    ),
    "contrast model": lambda module: ContrastModel(module)(INPUTS),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_submodule_keeps_its_mode_and_its_buffers(look):
    module = frozen()
    modes = {name: part.training for name, part in module.named_modules()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    look(module)
    assert {name: part.training for name, part in module.named_modules()} == modes
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    assert module.head.reduction == "mean"


def test_row_losses_of_a_frozen_backbone_are_the_cross_entropy_of_what_it_predicts():
    module = frozen()
    norm, last = module.backbone[1], module.backbone[3]
    hidden = module.backbone[0](INPUTS)
    normed = (hidden - 0.3) / (1 + norm.eps) ** 0.5  # running variance 1, no dropout
    logits = module.head.classifier(last(normed))
    expected = F.cross_entropy(logits, TARGET, reduction="none")
    torch.testing.assert_close(row_losses(module, INPUTS, TARGET), expected)


def test_while_row_losses_run_another_thread_has_the_heads_own_reduction():
    """The head's loss is held up in the middle by a hook, while this thread asks for a mean."""
    head = Softmax(6, K)
    inside, done = threading.Event(), threading.Event()
    found = []

    def wait(*_):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert done.wait(60)

    head.classifier.register_forward_hook(wait)
    thread = threading.Thread(target=lambda: found.append(row_losses(head, INPUTS, TARGET)))
    thread.start()
    assert inside.wait(60)
    loss = head(INPUTS, TARGET).loss
    done.set()
    thread.join()
    assert loss.shape == ()
    torch.testing.assert_close(found[0].mean(), loss)


def test_what_is_no_head_is_named():
    wrapped = nn.DataParallel(Classifier(nn.Identity(), Softmax(6, K)))
    for module in (nn.Linear(6, K), nn.Sequential(nn.Linear(6, K)), wrapped):
        with pytest.raises(TypeError, match=f"head or a Classifier.* got {type(module).__name__}"):
            row_losses(module, INPUTS, TARGET)
        with pytest.raises(TypeError, match="head or a Classifier"):
            meta_step(module)


def test_labels_out_of_range_have_no_rate():
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\].* got 2"):
        MetaSampler([5, 3]).weights(torch.tensor([0, 2]))


def test_row_losses_of_a_compiled_head_and_of_one_with_hooks_are_the_heads():
    head = DropMax(6, K)
    noise = torch.Generator().manual_seed(1)
    rows = row_losses(head, INPUTS, TARGET, generator=noise)
    head.reduction = "none"
    own = head(INPUTS, TARGET, generator=torch.Generator().manual_seed(1)).loss
    torch.testing.assert_close(rows, own)
    head.reduction = "mean"
    compiled = torch.compile(head, backend="eager")
    seen = row_losses(compiled, INPUTS, TARGET, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(seen, own)
    assert head.reduction == "mean"
