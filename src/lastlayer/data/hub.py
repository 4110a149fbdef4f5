"""Data sets of the Hugging Face hub, through the extra ``hub``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lastlayer.data.images import Size, image_to_array, stack_images
from lastlayer.data.labels import index_labels
from lastlayer.data.sources import SOURCES, Examples, Raw
from lastlayer.data.subset import set_test_apart
from lastlayer.data.tfidf import Tfidf


@SOURCES.register("hub", description="hub:NAME, a data set of the Hugging Face hub (extra 'hub')")
def hub(
    data_dir: Path | None = None,
    *,
    dataset: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    input_column: str | None = None,
    label_column: str | None = None,
    test_split: str | None = None,
    size: Size = None,
    grayscale: bool = False,
    max_features: int = 5000,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Raw:
    """Read a data set of images or texts with class labels; texts become TF-IDF vectors.

    Args:
        data_dir: where the hub's library keeps its copies; None for its own place.
        dataset: the name on the hub.
        config: the data set's configuration, if it has several.
        revision: branch, tag or commit; name a commit to be sure of the data.
        input_column: the images or texts; found by its type if there is only one candidate.
        label_column: the labels; found by its type if there is only one candidate.
        test_split: name of the split to test on; else "test", else "validation", else a draw.
        size: side or (height, width) to scale images to.
        grayscale: one channel instead of three.
        max_features: number of TF-IDF terms for texts.
        test_fraction: share of the test part where there is no split for it, in (0, 1).
        split_seed: fixes that draw, whatever the seed of the run.

    Returns:
        Training and test examples.

    Raises:
        ImportError: if the extra is not installed.
        ValueError: if columns or splits are not what is needed.
    """
    if not dataset:
        raise ValueError("name the data set after a colon, as in hub:NAME")
    parts = _load(dataset, config, revision, data_dir)
    train_part = _part(parts, "train", dataset)
    test_name = test_split or next((n for n in ("test", "validation") if n in parts), None)
    columns = _columns(train_part.features, input_column, label_column, dataset)
    wanted = [train_part] if test_name is None else [train_part, _part(parts, test_name, dataset)]
    labels = [list(part[columns[1]]) for part in wanted]
    class_names, targets = _targets(train_part.features[columns[1]], labels, dataset)
    is_text = _type_name(train_part.features[columns[0]]) == "Value"
    read = [
        Examples(_inputs(part[columns[0]], is_text, size, grayscale, dataset), target)
        for part, target in zip(wanted, targets, strict=True)
    ]
    if len(read) == 1:
        read = list(set_test_apart(read[0], fraction=test_fraction, seed=split_seed))
    notes: tuple[str, ...] = ()
    if test_name is None:
        notes = ("No test split: examples were set apart for the test.",)
    elif test_name != "test":
        notes = (f"The test part is the split {test_name!r}.",)
    return Raw(
        train=read[0],
        test=read[1],
        class_names=class_names,
        kind="vector" if is_text else "image",
        encoder=Tfidf(max_features=max_features) if is_text else None,
        notes=notes,
    )


def _load(
    dataset: str, config: str | None, revision: str | None, data_dir: Path | None
) -> Mapping[str, Any]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(
            "data source 'hub' needs the library datasets: pip install lastlayer[hub]"
        ) from error
    cache_dir = str(data_dir) if data_dir is not None else None
    parts: Mapping[str, Any] = load_dataset(dataset, config, revision=revision, cache_dir=cache_dir)
    return parts


def _part(parts: Mapping[str, Any], name: str, dataset: str) -> Any:
    if name not in parts:
        raise ValueError(f"hub:{dataset} has no split {name!r}; found {', '.join(parts)}")
    return parts[name]


def _type_name(feature: object) -> str:
    return type(feature).__name__


def _columns(
    features: Mapping[str, Any], input_column: str | None, label_column: str | None, dataset: str
) -> tuple[str, str]:
    """Return the columns of inputs and labels: as named, else the only ones of a fitting type."""
    images = [name for name, feature in features.items() if _type_name(feature) == "Image"]
    values = [name for name, feature in features.items() if _type_name(feature) == "Value"]
    texts = [name for name in values if features[name].dtype in ("string", "large_string")]
    labels = [name for name, feature in features.items() if _type_name(feature) == "ClassLabel"]
    chosen = []
    for option, given, candidates in (
        ("label_column", label_column, labels),
        ("input_column", input_column, images or [t for t in texts if t != label_column]),
    ):
        if given is None and len(candidates) != 1:
            found = f"candidates {', '.join(candidates)}" if candidates else "no candidate"
            raise ValueError(
                f"hub:{dataset}: set the option {option}; {found} among {', '.join(features)}"
            )
        name = given or candidates[0]
        if name not in features:
            raise ValueError(f"hub:{dataset} has no column {name!r}; found {', '.join(features)}")
        chosen.append(name)
    label, inputs = chosen
    return inputs, label


def _targets(
    feature: Any, labels: Sequence[list[Any]], dataset: str
) -> tuple[tuple[str, ...], list[Tensor]]:
    """Return class names and one target per part."""
    if any(label is None or label == -1 for part in labels for label in part):
        raise ValueError(
            f"hub:{dataset}: a split has examples without a label; choose another test_split"
        )
    if _type_name(feature) == "ClassLabel":
        return tuple(feature.names), [torch.tensor(part, dtype=torch.int64) for part in labels]
    test = labels[1] if len(labels) > 1 else []
    class_names, train_target, test_target = index_labels(labels[0], test, where=f"hub:{dataset}")
    return class_names, [train_target, test_target][: len(labels)]


def _inputs(
    column: Sequence[Any], is_text: bool, size: Size, grayscale: bool, dataset: str
) -> Tensor | tuple[str, ...]:
    if is_text:
        return tuple(str(text) for text in column)
    names = [f"hub:{dataset}, image {row}" for row in range(len(column))]
    arrays = [
        image_to_array(image, size=size, grayscale=grayscale, where=name)
        for image, name in zip(column, names, strict=True)
    ]
    return torch.from_numpy(stack_images(arrays, names))
