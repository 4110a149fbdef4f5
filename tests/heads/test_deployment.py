"""Heads as ONNX programs, and under checkpointing."""

from __future__ import annotations

import copy

import pytest
import torch
from counted_heads import build_head
from torch.utils.checkpoint import checkpoint

from lastlayer.heads import HEADS

D, K = 4, 5
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["logit-adjusted", "sparsemax"])
def test_an_onnx_program_predicts_as_the_head(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    head = build_head(name, D, K).eval()
    features = torch.randn(7, D)
    path = tmp_path / "head.onnx"
    torch.onnx.export(
        head,
        (features[:3],),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: features.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), head(features).detach())


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpointed_loss_has_the_gradients_of_a_plain_one(name):
    torch.manual_seed(0)
    head = build_head(name, D, K)
    features, target = torch.randn(6, D, requires_grad=True), torch.arange(6) % K
    found = []
    for run in (lambda f, *a: f(*a), lambda f, *a: checkpoint(f, *a, use_reentrant=False)):
        torch.manual_seed(1)
        twin = copy.deepcopy(head)  # one of them counts labels
        loss = run(lambda x, twin=twin: twin(x, target).loss, features)
        inputs = [features, *twin.parameters()]
        found.append(torch.autograd.grad(loss, inputs, allow_unused=True))
    for plain, own in zip(*found, strict=True):
        assert (plain is None) == (own is None)
        if plain is not None:
            assert torch.equal(plain, own)
