"""Small files in the data sets' own formats."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from idx_files import idx_bytes

COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


@pytest.fixture
def make_mnist(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the four files, 40 + 20 images, and returns their folder."""

    def make(subfolder: str = "", suffix: str = ".gz", mark: str = "-") -> Path:
        folder = tmp_path / subfolder
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for part, count in (("train", 40), ("t10k", 20)):
            images = rng.integers(0, 256, (count, 28, 28))
            labels = np.arange(count) % 10
            for stem, array in (
                (f"{part}-images{mark}idx3-ubyte", images),
                (f"{part}-labels{mark}idx1-ubyte", labels),
            ):
                (folder / (stem + suffix)).write_bytes(COMPRESS[suffix](idx_bytes(array)))
        return folder

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets, named by the environment variable LASTLAYER_DATA."""
    folder = os.environ.get("LASTLAYER_DATA")
    if not folder:
        pytest.skip("LASTLAYER_DATA does not name the folder of the real data sets")
    return Path(folder)
