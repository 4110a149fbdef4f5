"""Augmentation of a run's batches, by draws that seed and step alone decide."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._random import derive_seed
from lastlayer.data.augmentation import Augmentation, build_augmentation
from lastlayer.training.config import RunConfig


class SeededAugmentation:
    """Augmentations one after another, drawn on the images' device from the run's seed.

    Example:
        >>> from lastlayer.data import RandomCrop, RandomFlip
        >>> augment = SeededAugmentation([RandomCrop(), RandomFlip()], seed=0)
        >>> images = torch.rand(4, 3, 32, 32)
        >>> bool((augment(images, step=7) == augment(images, step=7)).all())
        True
    """

    def __init__(self, augmentations: Sequence[Augmentation], *, seed: int) -> None:
        self.augmentations = tuple(augmentations)
        self.seed = seed

    def __call__(self, images: Tensor, *, step: int, rank: int = 0) -> Tensor:
        """Return the (N, C, H, W) images of one step changed; every process draws its own."""
        seed = derive_seed(self.seed, "augmentation", step, rank)
        generator = torch.Generator(device=images.device).manual_seed(seed)
        for augment in self.augmentations:
            images = augment(images, generator=generator)
        return images


def build_augmentations(
    config: RunConfig, input_shape: tuple[int, ...]
) -> SeededAugmentation | None:
    """Build what changes a run's training images, or None; ``ValueError`` if it does not fit."""
    entries = config.training.augment
    if not entries:
        return None
    if len(input_shape) != 3:
        raise ValueError(
            "training.augment is for images (channels, height, width); "
            f"the inputs have shape {input_shape}"
        )
    tables = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    return SeededAugmentation([build_augmentation(**table) for table in tables], seed=config.seed)
