"""A folder of images with one folder per class."""

from __future__ import annotations

from pathlib import Path

import torch

from lastlayer.data.files import DataFileError, require_data_dir
from lastlayer.data.images import EXTENSIONS, Size, read_image, stack_images
from lastlayer.data.sources import SOURCES, Examples, Raw
from lastlayer.data.subset import set_test_apart

_LAYOUT = "Expected folders train/CLASS/ with images, and optionally test/CLASS/ or val/CLASS/."


@SOURCES.register("folder", description="your images: train/CLASS/*.png, optionally test/ or val/")
def folder(
    data_dir: Path | None = None,
    *,
    size: Size = None,
    grayscale: bool = False,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Raw:
    """Read images from ``data_dir/train/CLASS``; classes in alphabetical order.

    The test part is ``test/``, else ``val/``, else a draw in proportion to the classes. Without
    ``train/`` the class folders are taken from ``data_dir`` itself.

    Args:
        data_dir: the folder.
        size: side or (height, width) to scale to; needed if the images differ in size.
        grayscale: one channel instead of three.
        test_fraction: share of the test part where there is no folder for it, in (0, 1).
        split_seed: fixes that draw, whatever the seed of the run.

    Returns:
        Training and test images.
    """
    root = require_data_dir(data_dir, "folder", _LAYOUT)
    held_out = [root / name for name in ("test", "val") if (root / name).is_dir()]
    train_folder = root / "train" if (root / "train").is_dir() or held_out else root
    if not train_folder.is_dir():
        raise FileNotFoundError(f"{root} has {held_out[0].name} but no train folder. {_LAYOUT}")
    class_names = tuple(_class_folders(train_folder))
    if len(class_names) < 2:
        raise FileNotFoundError(
            f"{train_folder} has {len(class_names)} class folders, at least two are needed. "
            f"{_LAYOUT}"
        )
    everything = _read(train_folder, class_names, size, grayscale)
    notes: tuple[str, ...] = ()
    if not held_out:
        train, test = set_test_apart(everything, fraction=test_fraction, seed=split_seed)
        notes = (f"No test folder: {len(test.target)} images were set apart for the test.",)
    else:
        train, test = everything, _read(held_out[0], class_names, size, grayscale)
        if held_out[0].name == "val":
            notes = ("No test folder: val is the test part.",)
        elif len(held_out) > 1:
            notes = ("The folder val is not read; validation examples are drawn from train.",)
    return Raw(train=train, test=test, class_names=class_names, kind="image", notes=notes)


def _class_folders(parent: Path) -> list[str]:
    return sorted(
        child.name for child in parent.iterdir() if child.is_dir() and child.name[0] not in "._"
    )


def _read(parent: Path, class_names: tuple[str, ...], size: Size, grayscale: bool) -> Examples:
    """Read every image of every class folder in ``parent``."""
    unknown = sorted(set(_class_folders(parent)) - set(class_names))
    if unknown:
        raise DataFileError(f"{parent} has the class folder {unknown[0]!r}, which train has not")
    arrays, names, labels = [], [], []
    for label, class_name in enumerate(class_names):
        class_folder = parent / class_name
        files = sorted(p for p in class_folder.glob("*") if p.suffix.lower() in EXTENSIONS)
        if not files:
            raise DataFileError(
                f"class {class_name!r} has no image in {class_folder} (looked for "
                f"{' '.join(EXTENSIONS)})"
            )
        for file in files:
            arrays.append(read_image(file, size=size, grayscale=grayscale))
            names.append(str(file))
            labels.append(label)
    return Examples(torch.from_numpy(stack_images(arrays, names)), torch.tensor(labels))
