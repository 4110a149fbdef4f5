"""Features of ``.npy`` and parquet files, larger than memory maybe, to fit linear models to."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_options
from lastlayer.data.loading import draw_parts, validation_count
from lastlayer.data.sources import Examples, Raw
from lastlayer.data.subset import set_test_apart
from lastlayer.experiments.linear_data import DTYPES, LinearData, RowsPart, digest_of
from lastlayer.linear_model.rows import rows_from_files
from lastlayer.linear_model.rows.files import MEMORY_BOUND, PARQUET, file_paths, read_labels
from lastlayer.linear_model.rows.labels import index_classes


def is_read_in_blocks(features: str | None) -> bool:
    """Return whether features are of a kind that :func:`load_linear_files` reads."""
    return features is not None and Path(features).suffix in (".npy", *PARQUET)


def load_linear_files(
    features: str,
    target: str | None,
    *,
    columns: Sequence[str] | None = None,
    train_size: int | None = None,
    held_out: bool = False,
    validation_size: float | None = None,
    seed: int = 0,
    dtype: str = "float32",
    memory_bound: int = MEMORY_BOUND,
    device: str | None = None,
    cluster: Any = None,
    options: Mapping[str, Any] | None = None,
) -> LinearData:
    """Read labels, and features block by block in every pass; see ``rows_from_files``.

    The parts are those that the ``npz`` data source draws of the same examples, by its ``options``
    ``test_fraction`` and ``split_seed``; sizes as of :func:`load_linear_data`.
    """
    check_choice("dtype", dtype, DTYPES)
    check_options(f"features {features!r}", _set_apart, options or ())
    if target is None:
        raise ValueError(
            f"target must name the labels of {features}: a .npy file, FILE.npz:NAME, or a column "
            "of parquet files"
        )
    labels, classes = index_classes(read_labels(features, target), name=target)
    everything = Examples(torch.arange(len(labels)), labels)
    pool, test = _set_apart(everything, **(options or {}))
    wanted = validation_count(validation_size if held_out else 0, train_size, len(pool.target))
    raw = Raw(pool, test, tuple(map(str, classes)), kind="vector")
    drawn = draw_parts(raw, train_size, wanted, seed)
    train, validation = (_indices(pool)[torch.from_numpy(part)] for part in drawn)

    def part(indices: Tensor) -> RowsPart:
        subset = torch.zeros(len(labels), dtype=torch.bool)
        subset[indices] = True
        rows = rows_from_files(
            features,
            target,
            subset=subset,
            classes=classes,
            columns=columns,
            dtype=getattr(torch, dtype),
            device=device or "cpu",
            memory_bound=memory_bound,
            cluster=cluster,
        )
        return RowsPart(rows, len(indices))

    train_rows, test_rows = part(train), part(_indices(test))  # which name a file that is missing
    # What tells whether data have changed: of files their size and time alone.
    about = repr((features, target, columns, dtype, classes.tolist()))
    stats = [(str(path.resolve()), path.stat()) for path in file_paths("features", features)]
    files = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    told = np.frombuffer(f"{about}{files}".encode(), np.uint8)
    parts = (labels, train, validation, _indices(test))
    return LinearData(
        name=_name(features),
        train=train_rows,
        test=test_rows,
        validation=part(validation) if wanted else None,
        notes=(f"No test arrays: {len(test.target)} examples were set apart for the test.",),
        files=digest_of((told, *(part.numpy() for part in parts))),
    )


def _set_apart(
    everything: Examples, *, test_fraction: float = 0.2, split_seed: int = 0
) -> tuple[Examples, Examples]:
    return set_test_apart(everything, fraction=test_fraction, seed=split_seed)


def _indices(examples: Examples) -> Tensor:
    return torch.as_tensor(examples.inputs)


def _name(features: str) -> str:
    """Return a name for folders: of the file, or what of a pattern is no pattern."""
    stem = Path(features).stem
    plain = stem.partition("*")[0].rstrip("-_.") if glob.has_magic(stem) else stem
    return plain or Path(features).absolute().parent.name
