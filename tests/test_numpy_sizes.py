"""Sizes that are drawn by NumPy mean what Python's numbers mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lastlayer import data, information, regularizers
from lastlayer.functional.blocks import block_grid
from lastlayer.information.windows import window_pmi


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numpy_sizes_give_what_python_s_give(kind):
    assert block_grid((8, 16, 9, 9), kind(3)) == block_grid((8, 16, 9, 9), 3)
    assert block_grid((8, 16, 9, 9), (kind(3), kind(5))) == block_grid((8, 16, 9, 9), (3, 5))
    torch.manual_seed(0)
    features, images = torch.randn(8, 4, 9, 9), torch.rand(2, 1, 6, 8)
    for name in ("drop-block", "disout"):
        outputs = []
        for size in (3, kind(3)):
            generator = torch.Generator().manual_seed(1)
            layer = regularizers.build_regularizer(
                name, p=0.3, block_size=size, generator=generator
            )
            outputs.append(layer(features))
        assert torch.equal(*outputs)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    plain = window_pmi(model, images, 0, 2, stride=2, batch_size=5)
    assert torch.equal(
        window_pmi(model, images, 0, kind(2), stride=kind(2), batch_size=kind(5)), plain
    )
    assert data.class_tasks(6, base=kind(2), steps=kind(2)) == data.class_tasks(6, base=2, steps=2)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    target = torch.arange(600) % 2
    inputs = torch.randn(600, 1, 6, 8)
    reports = [
        information.feature_report(network, target, inputs=inputs, batch_size=size).as_dict()
        for size in (7, kind(7))
    ]
    assert reports[0] == reports[1]


@pytest.mark.parametrize("wrong", [0, 2.0, "3", True, None, (3, 0), (3, 2.5)])
def test_a_block_size_that_is_no_whole_number_is_named(wrong):
    with pytest.raises(ValueError, match="block_size must be"):
        regularizers.DropBlock(block_size=wrong)
