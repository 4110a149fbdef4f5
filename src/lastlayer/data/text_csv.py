"""Texts with labels in CSV files, as TF-IDF vectors."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lastlayer._checks import check_options
from lastlayer.data.files import (
    DataFileError,
    find_folder,
    read_bytes,
    require_data_dir,
    require_file,
)
from lastlayer.data.labels import index_labels
from lastlayer.data.sources import SOURCES, Examples, Raw
from lastlayer.data.tfidf import Tfidf

_LAYOUT = "Expected train.csv and test.csv in it (plain or compressed), or the options train, test."


@SOURCES.register("text-csv", description="your texts: train.csv and test.csv as TF-IDF vectors")
def text_csv(
    data_dir: Path | None = None,
    *,
    train: str = "train.csv",
    test: str = "test.csv",
    text_column: str = "text",
    label_column: str = "category",
    max_features: int = 5000,
    min_df: int = 2,
    ngram_range: tuple[int, int] = (1, 2),
    sublinear_tf: bool = True,
) -> Raw:
    """Read two CSV files in UTF-8 with a header, plain or compressed.

    A file called ``.tsv`` has its columns parted by tabs and no quotes, as GLUE's.

    The vectors' vocabulary is learned from the drawn training split alone, neither from the
    validation nor from the test texts.

    Args:
        data_dir: the folder.
        train: the training file in it.
        test: the test file in it.
        text_column: header of the texts.
        label_column: header of the labels; the classes are the training labels, sorted.
        max_features: at most so many terms, the most frequent.
        min_df: a term must occur in at least so many training texts.
        ngram_range: shortest and longest run of words taken as a term.
        sublinear_tf: count a term with 1 + log(occurrences).

    Returns:
        Training and test texts with the encoder to be fitted.
    """
    encoder = Tfidf(max_features, min_df, (ngram_range[0], ngram_range[1]), sublinear_tf)
    root = require_data_dir(data_dir, "text-csv", _LAYOUT)
    columns = (text_column, label_column)
    texts, labels = _read_csv(require_file(root, [train], _LAYOUT), columns)
    test_texts, test_labels = _read_csv(require_file(root, [test], _LAYOUT), columns)
    class_names, target, test_target = index_labels(labels, test_labels, where=str(root / test))
    return Raw(
        train=Examples(texts, target),
        test=Examples(test_texts, test_target),
        class_names=class_names,
        kind="vector",
        encoder=encoder,
    )


@SOURCES.register("banking77", description="customers' questions to a bank as TF-IDF; 77 intents")
def banking77(data_dir: Path | None = None, **options: Any) -> Raw:
    """Read BANKING77's train.csv and test.csv from ``data_dir/banking77`` or ``data_dir``.

    Args:
        data_dir: the folder.
        **options: of ``text-csv``.

    Source: Casanueva et al., "Efficient intent detection with dual sentence encoders", 2020.
    """
    return _known("banking77", data_dir, ("banking77",), options)


@SOURCES.register("sst-2", description="film reviews as TF-IDF; 2 sentiments, GLUE's dev part")
def sst2(data_dir: Path | None = None, **options: Any) -> Raw:
    """Read SST-2's train.tsv and dev.tsv from ``data_dir/sst-2``, ``SST-2`` or ``data_dir``.

    GLUE's own test part has no labels; its development part is the test part here.

    Args:
        data_dir: the folder.
        **options: of ``text-csv``.

    Source: Socher et al., EMNLP 2013, in the split of GLUE.
    """
    layout = {"train": "train.tsv", "test": "dev.tsv"}
    columns = {"text_column": "sentence", "label_column": "label"}
    return _known("sst-2", data_dir, ("sst-2", "SST-2"), layout | columns | options)


def _known(
    name: str, data_dir: Path | None, subfolders: tuple[str, ...], options: dict[str, Any]
) -> Raw:
    check_options(f"data source {name!r}", text_csv, options)
    how_to_get = f"Put its files, or its folder {subfolders[0]}, there."
    root = require_data_dir(data_dir, name, how_to_get)
    folders = [*(root / subfolder for subfolder in subfolders), root]
    train = options.get("train", "train.csv")
    return text_csv(find_folder(folders, [train], how_to_get), **options)


class _Tabs(csv.Dialect):
    delimiter = "\t"
    quoting = csv.QUOTE_NONE
    lineterminator = "\n"


def _read_csv(path: Path, columns: tuple[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the two columns."""
    content = read_bytes(path)
    try:
        stream = io.StringIO(content.decode("utf-8-sig"), newline="")
        dialect = _Tabs if ".tsv" in path.suffixes else csv.excel
        reader = csv.DictReader(stream, strict=True, dialect=dialect)
        header = list(reader.fieldnames or ())
        for column in columns:
            if column not in header:
                found = ", ".join(header) or "nothing"
                raise DataFileError(f"{path}: no column {column!r}; found {found}")
        rows = []
        for row in reader:
            pair = tuple(row[column] for column in columns)
            if not pair[0] or not pair[1]:
                raise DataFileError(f"{path}, line {reader.line_num}: a text or label is missing")
            rows.append(pair)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"{path}: not a readable CSV file in UTF-8 ({error})") from error
    if not rows:
        raise DataFileError(f"{path}: no row beneath the header")
    texts, labels = zip(*rows, strict=True)
    return texts, labels
