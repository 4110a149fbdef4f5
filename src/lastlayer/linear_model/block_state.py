"""What solvers keep beside the rows, on disk instead of in memory."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class FolderState(MutableMapping[str, Tensor]):
    """Tensors by name, each in a file; reading gives a copy, writing replaces the file.

    Args:
        folder: an existing folder.
        prefix: of the files' names, one a block.
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
