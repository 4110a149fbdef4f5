"""From a source's name to checked splits: read, draw, encode, scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lastlayer._checks import check_options, is_whole
from lastlayer.data.sources import SOURCES, Examples, FittedEncoder, Raw
from lastlayer.data.splits import Split, Splits, check_labels
from lastlayer.data.subset import Indices, balanced_subset, level_subset, stratified_subset

# Each draw has its own stream, so that one does not shift the other.
_TRAIN_STREAM, _VALIDATION_STREAM = 0, 1

DEFAULT_VALIDATION_FRACTION = 0.1

#: From the labels (N,) of training examples to the indices of those that stay.
Keep = Callable[[Tensor], Tensor]


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    validation_size: float | None = 0,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
) -> Splits:
    """Load the data source called ``name``.

    With ``train_size`` the training split is a random class-balanced subset, and the validation
    split has class counts as level as the remaining examples allow. Without it the validation
    split is taken out of the training examples in proportion to the classes. The same seed gives
    the same draws; the training subset does not depend on ``validation_size``, and a larger
    subset holds a smaller one. The test split is the source's, whatever the seed.

    Args:
        name: a name in ``SOURCES``; ``hub:NAME`` for a data set of the Hugging Face hub.
        data_dir: folder of the source's files.
        train_size: number of training examples to draw, at least one per class; None for all.
        validation_size: number of validation examples (int), or their fraction of the source's
            training examples (float in (0, 1)); 0 for no validation split; None for a default:
            as many as ``train_size``, at most half of what is left, or a tenth of all.
        seed: fixes the draws; at least 0.
        options: the source's own options.
        keep: chooses the training examples that stay, by their labels, once ``train_size`` and the
            validation split are drawn; the validation split is then as class-balanced as the
            examples allow, and untouched by the choice.

    Returns:
        The splits.

    Raises:
        FileNotFoundError: if a file is missing; the message says what was looked for and where.
        ValueError: if a name, option, size or file is not what it should be.

    Example:
        >>> splits = load("digits", train_size=100, validation_size=50)
        >>> len(splits.train), len(splits.validation), len(splits.test), splits.input_shape
        (100, 50, 500, (1, 8, 8))
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}")
    if train_size is not None and type(train_size) is not int:
        raise ValueError(f"train_size must be an int or None; got {train_size!r}")
    raw = _read(name, data_dir, options)
    target = raw.train.target.numpy()
    held_out = validation_count(validation_size, train_size, len(target))
    chosen = draw_parts(raw, train_size, held_out, seed, level=keep is not None)
    if keep is not None:
        kept = keep(raw.train.target[torch.from_numpy(chosen[0])])
        chosen = chosen[0][kept.numpy()], chosen[1]
    train = raw.train.take(chosen[0])
    encoder = _fit(raw, train)
    validation = raw.train.take(chosen[1]) if len(chosen[1]) else None
    train_split = _split(train, encoder)
    mean, std = _channel_statistics(train_split.inputs) if raw.kind == "image" else (None, None)
    return Splits(
        name=name,
        train=train_split,
        validation=_split(validation, encoder) if validation is not None else None,
        test=_split(raw.test, encoder),
        class_names=raw.class_names,
        kind=raw.kind,
        mean=mean,
        std=std,
        notes=raw.notes,
        extras=encoder.extras() if encoder is not None else {},
    )


def _read(name: str, data_dir: str | Path | None, options: Mapping[str, Any] | None) -> Raw:
    """Call the source and check its labels."""
    source_name, colon, dataset = name.partition(":")
    source = SOURCES.get(source_name)
    chosen = dict(options or {})
    if colon:
        chosen["dataset"] = dataset
    check_options(f"data source {source_name!r}", source, chosen)
    raw = source(Path(data_dir) if data_dir is not None else None, **chosen)
    for part, examples in (("training", raw.train), ("test", raw.test)):
        check_labels(examples.target, raw.class_names, where=f"{name}, {part} part")
    return raw


def validation_count(validation_size: float | None, train_size: int | None, available: int) -> int:
    """Turn a count, a fraction or None into a count."""
    if validation_size is None:
        if train_size is None:
            return max(1, round(DEFAULT_VALIDATION_FRACTION * available))
        return max(0, min(train_size, (available - train_size) // 2))
    if isinstance(validation_size, bool) or validation_size < 0:
        raise ValueError(
            "validation_size must be a count of at least 0 or a fraction in (0, 1); "
            f"got {validation_size!r}"
        )
    if is_whole(validation_size):
        return int(validation_size)
    if not validation_size < 1:
        raise ValueError(
            "validation_size as a float is a fraction and must lie in (0, 1), as an int it is a "
            f"count; got {validation_size!r}"
        )
    return max(1, round(validation_size * available)) if validation_size > 0 else 0


def draw_parts(
    raw: Raw, train_size: int | None, validation_count: int, seed: int, *, level: bool = False
) -> tuple[Indices, Indices]:
    """Return the indices of the training and of the validation examples."""
    target = raw.train.target.numpy()
    train_rng = np.random.default_rng([seed, _TRAIN_STREAM])
    validation_rng = np.random.default_rng([seed, _VALIDATION_STREAM])
    if train_size is None:
        if level and validation_count >= len(target):
            raise ValueError(
                f"validation_size {validation_count} is too large: there are {len(target)} "
                "training examples"
            )
        draw = level_subset if level else stratified_subset
        validation = draw(target, validation_count, validation_rng)
        return np.setdiff1d(np.arange(len(target)), validation), validation
    train = balanced_subset(target, train_size, class_names=raw.class_names, rng=train_rng)
    rest = np.setdiff1d(np.arange(len(target)), train)
    if validation_count > len(rest):
        raise ValueError(
            f"validation_size {validation_count} is too large: {len(rest)} of {len(target)} "
            f"training examples remain beside train_size {train_size}"
        )
    if validation_count == 0:
        return train, rest[:0]
    return train, rest[level_subset(target[rest], validation_count, validation_rng)]


def _fit(raw: Raw, train: Examples) -> FittedEncoder | None:
    if isinstance(train.inputs, Tensor):
        return None
    if raw.encoder is None:
        raise TypeError("a source of texts must give an encoder")
    return raw.encoder.fit(train.inputs)


def _split(examples: Examples, encoder: FittedEncoder | None) -> Split:
    """Scale uint8 images to [0, 1] and encode texts."""
    inputs = examples.inputs
    if not isinstance(inputs, Tensor):
        if encoder is None:
            raise TypeError("training inputs are a tensor but other inputs are texts")
        inputs = encoder.transform(inputs)
    elif inputs.dtype == torch.uint8:
        inputs = inputs.to(torch.float32).div_(255.0)
    return Split(inputs, examples.target)


def _channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel over ``(N, C, H, W)``."""
    std, mean = torch.std_mean(images, dim=(0, 2, 3), correction=0)
    return tuple(mean.tolist()), tuple(std.tolist())
