"""scikit-learn's bundled handwritten digits: no file, no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lastlayer.data.sources import SOURCES, Examples, Raw
from lastlayer.data.subset import stratified_subset, take_counts

TEST_SIZE = 500
SPLIT_SEED = 0


@SOURCES.register("digits", description="8x8 gray digits bundled with scikit-learn; 1,297 + 500")
def digits(data_dir: Path | None = None, *, test_per_class: int | None = None) -> Raw:
    """Read the 1,797 digits of 8x8 pixels, scaled from 0..16 to [0, 1].

    scikit-learn gives no test part, so 500 examples are set apart by a fixed draw in proportion
    to the classes (``SPLIT_SEED``); it is the same for everyone and for every seed of a run.

    Args:
        data_dir: not used.
        test_per_class: so many test examples of every class, by a draw as fixed, in place of 500;
            at most 173, for the rarest digit has 174.

    Returns:
        1,297 training and 500 test images, or as ``test_per_class`` says.

    Raises:
        ValueError: if ``test_per_class`` is out of range.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images / 16.0).to(torch.float32).unsqueeze(1)
    target = bunch.target.astype(np.int64)
    rng = np.random.default_rng(SPLIT_SEED)
    if test_per_class is None:
        test = stratified_subset(target, TEST_SIZE, rng)
    else:
        most = int(np.bincount(target).min()) - 1
        if not 1 <= test_per_class <= most:
            raise ValueError(f"test_per_class must lie in [1, {most}]; got {test_per_class}")
        test = take_counts(target, np.full(10, test_per_class), rng)
    train = np.setdiff1d(np.arange(len(target)), test)
    everything = Examples(images, torch.from_numpy(target))
    return Raw(
        train=everything.take(train),
        test=everything.take(test),
        class_names=tuple(str(digit) for digit in range(10)),
        kind="image",
    )
