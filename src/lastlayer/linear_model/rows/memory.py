"""Examples in this process's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer._checks import check_count, check_finite, check_labels, check_matrix
from lastlayer.linear_model.rows.labels import as_weight
from lastlayer.linear_model.rows.matrices import DenseMatrix
from lastlayer.linear_model.rows.protocol import Block, Step, add_up

#: Bytes of the features of a block: two products with them, and what lies between, stay in a cache.
BLOCK_BYTES = 2**23


class LocalRows:
    """Blocks held by this process, at least one.

    ``num_features`` is given where it is known without a look at a block.
    """

    in_memory = True

    def __init__(
        self,
        blocks: Sequence[Block],
        dtype: torch.dtype,
        device: torch.device,
        num_features: int | None = None,
        feature_names: Sequence[str] | None = None,
        classes: NDArray[Any] | None = None,
    ) -> None:
        if not len(blocks):
            raise ValueError("rows need at least one example; got none")
        self.blocks = blocks
        self.num_features = blocks[0].matrix.shape[1] if num_features is None else num_features
        self.dtype = dtype
        self.device = device
        self.feature_names = feature_names
        self.classes = classes

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    @property
    def num_rows(self) -> int:
        """Return the number of examples."""
        return sum(len(block.target) for block in self.blocks)

    @property
    def block_rows(self) -> int:
        """Return the number of examples of the largest block."""
        return max(len(block.target) for block in self.blocks)

    def reduce(self, step: Step, *shared: object) -> tuple[Tensor, ...]:
        """Return the sums over the blocks."""
        return add_up(step(block, *shared) for block in self)

    def clear(self) -> None:
        """Forget what solvers kept."""
        for block in self.blocks:
            block.state.clear()

    def rounded(self, mean: Tensor) -> LocalRows:
        """Return a copy in float32 of dense features less their mean, whose sums are in float64.

        The mean, (d,), is taken off before the rounding, so that it costs no digits.
        """
        return RoundedRows([_rounded(block, mean) for block in self], torch.float32, self.device)


class RoundedRows(LocalRows):
    """Rows in float32 whose sums over blocks are in float64."""

    def reduce(self, step: Step, *shared: object) -> tuple[Tensor, ...]:
        """Return the sums over the blocks."""
        found = (step(block, *shared) for block in self)
        return add_up(tuple(part.to(torch.float64) for part in parts) for parts in found)


def _rounded(block: Block, mean: Tensor) -> Block:
    if not isinstance(block.matrix, DenseMatrix):
        raise TypeError("features that are sparse are not centered, and so not rounded")
    values = (block.matrix.values - mean).to(torch.float32)
    weight = None if block.weight is None else block.weight.to(torch.float32)
    return Block(DenseMatrix(values), block.target, weight)


def rows_in_memory(
    features: Tensor, target: Tensor, weight: Tensor | None = None, *, block_rows: int | None = None
) -> LocalRows:
    """Return the rows of a tensor, in blocks that stay in a core's cache.

    Args:
        features: (n, d) floating point.
        target: (n,) class indices.
        weight: (n,) weights of at least 0.
        block_rows: rows of a block; by the size of a cache on the CPU, all rows elsewhere, if None.

    Raises:
        TypeError: if a dtype does not fit, or the features are sparse.
        ValueError: if a shape or ``block_rows`` does not fit, a number is not finite, or a weight
            is below 0.
    """
    if features.layout is not torch.strided:
        raise TypeError(f"features must be a dense tensor; got the layout {features.layout}")
    check_matrix("features", features)
    check_labels("target", target, len(features))
    check_finite("features", features)
    weight = as_weight(weight, len(features), features.dtype)
    if block_rows is not None:
        check_count("block_rows", block_rows)
        block_rows = int(block_rows)
    own = None if weight is None else weight.to(features.device)
    return cut_rows(features, target, own, block_rows=block_rows)


def cut_rows(
    features: Tensor, target: Tensor, weight: Tensor | None, *, block_rows: int | None = None
) -> LocalRows:
    """Return checked rows in blocks; see :func:`rows_in_memory`."""
    count, width = features.shape
    if block_rows is None:
        block_rows = count
        if features.device.type == "cpu":
            block_rows = max(256, BLOCK_BYTES // (features.element_size() * max(1, width)))
    blocks = []
    for start in range(0, count, block_rows):
        part = slice(start, start + block_rows)
        own = None if weight is None else weight[part]
        blocks.append(Block(DenseMatrix(features[part]), target[part], own))
    return LocalRows(blocks, features.dtype, features.device)
