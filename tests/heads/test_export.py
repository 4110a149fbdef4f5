"""An evaluated head is an ordinary module: it exports with a free batch size, and compiles."""

from __future__ import annotations

import pytest
import torch
from counted_heads import build_head

from lastlayer.heads import HEADS, DropMax

D, K = 5, 4
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluated_head_exports_with_a_dynamic_batch(name):
    torch.manual_seed(0)
    head = build_head(name, D, K).eval()
    program = torch.export.export(
        head, (torch.randn(3, D),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    for rows in (2, 7):
        features = torch.randn(rows, D)
        torch.testing.assert_close(program.module()(features), head(features))


# torch's compiler itself instantiates every autograd function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_training_dropmax_compiles_into_one_graph():
    torch.manual_seed(0)
    head = DropMax(D, K)
    features, target = torch.randn(6, D), torch.tensor([0, 1, 2, 3, 0, -100])
    noise = torch.randn(1, 6, K)
    expected = head(features, target, noise=noise)
    gradients = torch.autograd.grad(expected.loss, list(head.parameters()))
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    out = compiled(features, target, noise=noise)
    torch.testing.assert_close(out.loss, expected.loss)
    assert set(out.terms) == set(expected.terms)
    torch.testing.assert_close(
        torch.autograd.grad(out.loss, list(head.parameters())), gradients, rtol=1e-4, atol=1e-6
    )
