"""Rows that are read block by block in every pass, so that they need not fit into memory."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.linear_model.rows.matrices import DenseMatrix
from lastlayer.linear_model.rows.memory import BLOCK_BYTES, LocalRows
from lastlayer.linear_model.rows.protocol import Block
from lastlayer.linear_model.rows.sources import Chunk, all_finite

#: Blocks alive at once: worked on, ready and, for a moment, the one before.
LIVE_BLOCKS = 3
#: Matrices of a block's logits that a step holds.
LIVE_LOGITS = 6


class StreamedBlocks(Sequence[Block]):
    """Blocks that are read when asked for, and kept while there is room.

    ``target`` and ``weight``, (n,), are of all rows; ``room`` is the bytes of features that may be
    kept; ``states`` what solvers keep, a mapping a block.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        target: Tensor,
        weight: Tensor | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
        room: int,
        states: Sequence[MutableMapping[str, Tensor]],
    ) -> None:
        self.chunks = chunks
        self.target = target.to(device)
        self.weight = None if weight is None else weight.to(device)
        self.dtype, self.device, self.room = dtype, device, room
        self.states = states
        self._ends = list(accumulate(chunk.num_rows for chunk in chunks))
        self._kept: dict[int, Tensor] = {}
        self._checked: set[int] = set()

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: Any) -> Any:
        if not -len(self) <= number < len(self):
            raise IndexError(f"there are {len(self)} blocks; got {number}")
        number %= len(self)
        part = slice(self._ends[number] - self.chunks[number].num_rows, self._ends[number])
        weight = None if self.weight is None else self.weight[part]
        matrix = DenseMatrix(self._values(number))
        return Block(matrix, self.target[part], weight, self.states[number])

    def _values(self, number: int) -> Tensor:
        if number in self._kept:
            return self._kept[number]
        array = self._read(self.chunks[number])
        if number not in self._checked:
            self._check(array, number)
        values = torch.from_numpy(array).to(self.device)
        size = values.numel() * values.element_size()
        if size <= self.room:
            self.room -= size
            self._kept[number] = values
        return values

    def _read(self, chunk: Chunk) -> NDArray[Any]:
        wanted = np.float32 if self.dtype == torch.float32 else np.float64
        with np.errstate(over="ignore"):  # becomes infinity, and an error that names the file
            return np.array(chunk.read(), dtype=wanted, order="C")

    def _check(self, array: NDArray[Any], number: int) -> None:
        if not all_finite(array):
            source = self.chunks[number].source
            same = [chunk for chunk in self.chunks if chunk.source == source]
            bad = sum(int((~np.isfinite(self._read(c))).any(axis=1).sum()) for c in same)
            raise ValueError(
                f"{source}: {bad} of {sum(chunk.num_rows for chunk in same)} rows hold NaN or "
                f"infinity in {str(self.dtype).removeprefix('torch.')}"
            )
        self._checked.add(number)


class StreamedRows(LocalRows):
    """Rows whose features are read anew in every pass, but for those that there is room for.

    Class indices, weights and the labels of the classes are in memory. So is what a solver keeps
    beside the rows (n * K numbers for Newton-Krylov, twice that for ADMM, none for L-BFGS), unless
    ``state_folder`` is given, in which a temporary folder is made for it. ``room`` is the bytes of
    features that may be kept; with ``prefetch`` a thread reads the next block while one is worked
    on.
    """

    blocks: StreamedBlocks
    in_memory = False

    def __init__(
        self,
        chunks: Sequence[Chunk],
        target: Tensor,
        weight: Tensor | None,
        *,
        num_features: int,
        classes: NDArray[Any],
        dtype: torch.dtype,
        device: torch.device,
        room: int = 0,
        prefetch: bool = True,
        state_folder: str | Path | None = None,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        states: list[MutableMapping[str, Tensor]] = [{} for _ in chunks]
        if state_folder is not None:
            home = Path(tempfile.mkdtemp(prefix="lastlayer-", dir=state_folder))
            weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
            states = [DiskState(home, str(number)) for number in range(len(chunks))]
        blocks = StreamedBlocks(
            chunks, target, weight, dtype=dtype, device=device, room=room, states=states
        )
        super().__init__(blocks, dtype, device, num_features, feature_names, classes)
        self.prefetch = prefetch

    @property
    def num_rows(self) -> int:
        """Return the number of examples."""
        return len(self.blocks.target)

    @property
    def block_rows(self) -> int:
        """Return the number of examples of the largest block."""
        return max(chunk.num_rows for chunk in self.blocks.chunks)

    def __iter__(self) -> Iterator[Block]:
        if not self.prefetch or len(self.blocks) == 1:
            for number in range(len(self.blocks)):
                yield self.blocks[number]
            return
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.blocks.__getitem__, 0)
            for after in range(1, len(self.blocks) + 1):
                block = coming.result()
                if after < len(self.blocks):
                    coming = reader.submit(self.blocks.__getitem__, after)
                yield block

    def clear(self) -> None:
        """Forget what solvers kept."""
        for state in self.blocks.states:
            state.clear()


class DiskState(MutableMapping[str, Tensor]):
    """What a solver keeps beside a block, on disk: tensors by name, each in a file of its prefix.

    Reading gives a copy, writing replaces the file.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        self._prefix = prefix
        self._devices: dict[str, torch.device] = {}

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._prefix}-{name}.npy"

    def __getitem__(self, name: str) -> Tensor:
        device = self._devices[name]
        return torch.from_numpy(np.load(self._path(name), allow_pickle=False)).to(device)

    def __setitem__(self, name: str, value: Tensor) -> None:
        np.save(self._path(name), value.detach().cpu().numpy(), allow_pickle=False)
        self._devices[name] = value.device

    def __delitem__(self, name: str) -> None:
        del self._devices[name]
        self._path(name).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._devices))

    def __len__(self) -> int:
        return len(self._devices)


def row_bytes(num_features: int, num_classes: int, dtype: torch.dtype, stored: int) -> int:
    """Return how many bytes a row takes while its block is worked on.

    ``dtype`` is of the computation, ``stored`` the bytes of a number in the file.
    """
    size = dtype.itemsize
    return num_features * (LIVE_BLOCKS * size + stored) + LIVE_LOGITS * num_classes * size


def choose_block_rows(
    bytes_a_row: int, num_features: int, dtype: torch.dtype, device: torch.device, bound: int
) -> int:
    """Return how many rows a block has: what fits into a core's cache, and into the bound."""
    most = bound // bytes_a_row
    if most < 1:
        raise ValueError(
            f"memory_bound must be at least the {bytes_a_row} bytes that a row takes; got {bound}"
        )
    if device.type != "cpu":
        return most
    return min(most, max(256, BLOCK_BYTES // (dtype.itemsize * num_features)))
