"""Named data sources, each read into checked splits of tensors by `load`."""

# Importing a source's module registers it, in the order of this list.
from lastlayer.data import digits, mnist, cifar, folder, image_lists, npz, text_csv, hub  # noqa: F401, I001
from lastlayer.data import canvases, synthetic_information  # noqa: F401
from lastlayer.data.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    RandomCrop,
    RandomCutout,
    RandomFlip,
    RandomRotation,
    build_augmentation,
)
from lastlayer.data.canvases import Canvases, canvas_parts, digit_canvases, read_digits
from lastlayer.data.class_tasks import ClassTasks, class_order, class_tasks, task_indices
from lastlayer.data.collages import Collages, digit_collages
from lastlayer.data.files import DataFileError
from lastlayer.data.images import read_image
from lastlayer.data.loading import load
from lastlayer.data.sources import SOURCES, Encoder, Examples, FittedEncoder, Raw, Source
from lastlayer.data.splits import Labelled, Split, Splits
from lastlayer.data.tfidf import FittedTfidf, Tfidf

__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "Augmentation",
    "Canvases",
    "ClassTasks",
    "Collages",
    "DataFileError",
    "Encoder",
    "Examples",
    "FittedEncoder",
    "FittedTfidf",
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
    "build_augmentation",
    "canvas_parts",
    "class_order",
    "class_tasks",
    "digit_canvases",
    "digit_collages",
    "load",
    "read_digits",
    "read_image",
    "task_indices",
]
