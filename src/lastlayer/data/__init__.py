"""Named data sources, each read into checked splits of tensors by `load`."""

# Importing a source's module registers it, in the order of this list.
from lastlayer.data import digits, mnist, cifar, folder, image_lists, npz, text_csv, hub  # noqa: F401, I001
from lastlayer.data import canvases, gaussian_mixture  # noqa: F401
from lastlayer.data.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    RandomCrop,
    RandomCutout,
    RandomFlip,
    RandomRotation,
)
from lastlayer.data.class_tasks import ClassTasks, class_order, class_tasks, task_indices
from lastlayer.data.files import DataFileError
from lastlayer.data.loading import load
from lastlayer.data.sources import SOURCES, Encoder, Examples, Raw, Source
from lastlayer.data.splits import Labelled, Split, Splits
from lastlayer.data.tfidf import Tfidf

__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "Augmentation",
    "ClassTasks",
    "DataFileError",
    "Encoder",
    "Examples",
    "Labelled",
    "RandomCrop",
    "RandomCutout",
    "RandomFlip",
    "RandomRotation",
    "Raw",
    "Source",
    "Split",
    "Splits",
    "Tfidf",
    "class_order",
    "class_tasks",
    "load",
    "task_indices",
]
