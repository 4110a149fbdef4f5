"""Images named line by line in text files, as ImageNet-LT and Places-LT are published."""

from __future__ import annotations

from pathlib import Path

import torch

from lastlayer.data.files import DataFileError, require_data_dir
from lastlayer.data.images import Size, read_image, stack_images
from lastlayer.data.sources import SOURCES, Examples, Raw

_LAYOUT = "Expected list files of lines PATH LABEL, the paths relative to it, such as a/1.jpg 0."


@SOURCES.register("image-lists", description="your images: list files of lines PATH LABEL")
def image_lists(
    data_dir: Path | None = None,
    *,
    train: str = "train.txt",
    test: str = "test.txt",
    root: str = ".",
    size: Size = None,
    grayscale: bool = False,
) -> Raw:
    """Read the images that two list files in ``data_dir`` name.

    A line is an image's path and its label, a number from 0, with white space between; the path may
    contain blanks, and empty lines are passed over. All images are held in memory.

    Args:
        data_dir: the folder of the list files.
        train: the training part's list.
        test: the test part's list.
        root: folder of the paths, relative to ``data_dir``.
        size: side or (height, width) to scale to; needed if the images differ in size.
        grayscale: one channel instead of three.

    Returns:
        Training and test images; the classes are called by their numbers.

    Raises:
        FileNotFoundError: if a list, or an image that it names, is missing.
        DataFileError: if a line is not PATH LABEL, or the training part lacks a label.
    """
    folder = require_data_dir(data_dir, "image-lists", _LAYOUT)
    lists = {name: _entries(folder / name) for name in (train, test)}
    labels = {label for _, label, _ in lists[train]}
    num_classes = max(labels) + 1
    missing = sorted(set(range(num_classes)) - labels)
    if missing:
        raise DataFileError(
            f"{folder / train}: labels must be all numbers from 0 to the largest, "
            f"{num_classes - 1}; {missing[0]} is missing"
        )
    for _, label, where in lists[test]:
        if label >= num_classes:
            raise DataFileError(f"{where}: label {label} does not occur in {train}")
    parts = {name: _read(folder / root, lists[name], size, grayscale) for name in lists}
    names = tuple(str(label) for label in range(num_classes))
    return Raw(train=parts[train], test=parts[test], class_names=names, kind="image")


#: An image's path, its label, and the line that says so.
_Entry = tuple[str, int, str]


def _entries(path: Path) -> list[_Entry]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no list file {path}. {_LAYOUT}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path}: not a text file in UTF-8 ({error})") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        name, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if not name.strip() or not (label.isascii() and label.isdigit()):
            raise DataFileError(f"{where}: expected PATH LABEL, a label from 0; found {line!r}")
        entries.append((name.strip(), int(label), where))
    if not entries:
        raise DataFileError(f"{path} names no image. {_LAYOUT}")
    return entries


def _read(root: Path, entries: list[_Entry], size: Size, grayscale: bool) -> Examples:
    arrays = []
    for name, _, where in entries:
        if not (root / name).is_file():
            raise FileNotFoundError(f"{where}: there is no image {root / name}")
        arrays.append(read_image(root / name, size=size, grayscale=grayscale))
    images = stack_images(arrays, [str(root / name) for name, _, _ in entries])
    return Examples(torch.from_numpy(images), torch.tensor([label for _, label, _ in entries]))
