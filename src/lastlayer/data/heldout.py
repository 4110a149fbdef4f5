"""A test part for sources that come without one."""

from __future__ import annotations

import numpy as np

from lastlayer.data.sources import Examples
from lastlayer.data.subset import stratified_subset


def set_test_apart(examples: Examples, *, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Split examples into a training and a test part in proportion to the classes.

    The seed is the split's own, not the run's: runs that differ in their seed keep the test part.

    Args:
        examples: everything there is.
        fraction: the test part's share, in (0, 1).
        seed: fixes the draw; at least 0.

    Returns:
        Training part and test part.

    Raises:
        ValueError: if the fraction is out of range or too large for the classes.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"test_fraction must lie in (0, 1); got {fraction!r}")
    if seed < 0:
        raise ValueError(f"split_seed must be at least 0; got {seed!r}")
    target = examples.target.numpy()
    size = max(1, round(fraction * len(target)))
    test = stratified_subset(target, size, np.random.default_rng(seed))
    return examples.take(np.setdiff1d(np.arange(len(target)), test)), examples.take(test)
