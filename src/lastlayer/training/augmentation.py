"""Augmentation of a run's batches, by draws that seed and step alone decide."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer.data import Augmentation
from lastlayer.training.randomness import derive_seed


class SeededAugmentation:
    """Augmentations one after another, drawn on the images' device.

    Args:
        augmentations: in the order in which they are applied.
        seed: the run's seed.

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
        """Return the images of one step changed.

        Args:
            images: ``(N, C, H, W)``.
            step: number of the step.
            rank: number of the process, so that two do not draw the same.

        Returns:
            Images as ``images``.
        """
        seed = derive_seed(self.seed, "augmentation", step, rank)
        generator = torch.Generator(device=images.device).manual_seed(seed)
        for augment in self.augmentations:
            images = augment(images, generator=generator)
        return images
