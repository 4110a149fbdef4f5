"""Texts in CSV files as TF-IDF vectors."""

from __future__ import annotations

import csv
import lzma
import math
from collections import Counter

import numpy as np
import pytest

from lastlayer.data import DataFileError, Tfidf, load
from lastlayer.data.tfidf import FittedTfidf

FISH = ("red fish swims", "red fish, blue fish", "a fish and a fish", "one red fish")
BIRD = ("red bird flies", "the bird sings", "a bird and a worm", "one blue bird")


def write(path, rows, header=("text", "category"), encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def texts(tmp_path):
    rows = [(text, "fish") for text in FISH] + [(text, "bird") for text in BIRD]
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "test.csv", [("a testword fish", "fish"), ("a testword bird", "bird")])
    return tmp_path


def test_vectors_equal_the_formula(texts):
    options = {"min_df": 1, "ngram_range": [1, 1]}
    splits = load("text-csv", data_dir=texts, options=options)
    assert splits.class_names == ("bird", "fish")
    assert splits.kind == "vector"
    documents = [[w.strip(",") for w in text.split() if len(w) > 1] for text in FISH + BIRD]
    terms = sorted({word for document in documents for word in document})
    assert splits.extras["vocabulary"] == terms
    expected = np.zeros((8, len(terms)))
    for row, document in enumerate(documents):
        for word, count in Counter(document).items():
            occurs = sum(word in other for other in documents)
            idf = math.log((1 + 8) / (1 + occurs)) + 1
            expected[row, terms.index(word)] = (1 + math.log(count)) * idf
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(splits.train.inputs.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_only_the_drawn_training_texts_are_fitted(tmp_path):
    rows = [(f"word{row} common", "ab"[row % 2]) for row in range(40)]
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "test.csv", [("testword common", "a")])
    splits = load(
        "text-csv", data_dir=tmp_path, train_size=10, validation_size=20, options={"min_df": 1}
    )
    single = [term for term in splits.extras["vocabulary"] if " " not in term]
    assert len(single) == 11  # "common" and one word of each training text
    assert "testword" not in single
    assert (splits.train.inputs[:, single_column(splits, single)] > 0).any(dim=0).all()


def single_column(splits, terms):
    return [splits.extras["vocabulary"].index(term) for term in terms]


def test_the_encoder_is_rebuilt_from_extras(texts):
    splits = load("text-csv", data_dir=texts, options={"min_df": 1})
    again = FittedTfidf.from_extras(splits.extras)
    found = again.transform(["a testword fish", "a testword bird"])
    np.testing.assert_array_equal(found, splits.test.inputs)


def test_max_features_keeps_the_most_frequent_terms(texts):
    splits = load("text-csv", data_dir=texts, options={"max_features": 2, "ngram_range": (1, 1)})
    assert splits.extras["vocabulary"] == ["bird", "fish"]


def test_other_columns_and_compressed_files_are_read(texts):
    for name in ("train", "test"):
        path = texts / f"{name}.csv"
        content = path.read_text().replace("text,category", "message,intent")
        (texts / f"{name}.csv.xz").write_bytes(lzma.compress(content.encode()))
        path.unlink()
    options = {"text_column": "message", "label_column": "intent"}
    assert len(load("text-csv", data_dir=texts, options=options).train) == 8


def test_files_are_named_by_option(texts):
    (texts / "train.csv").rename(texts / "mine.csv")
    assert len(load("text-csv", data_dir=texts, options={"train": "mine.csv"}).train) == 8


ROWS = [("red fish", "fish"), ("red bird", "bird")]
BREAKAGES = {
    "column": (
        lambda p: write(p, ROWS, header=("text", "label")),
        "no column 'category'; found text, label",
    ),
    "empty file": (lambda p: p.write_bytes(b""), "no column 'text'; found nothing"),
    "header only": (lambda p: write(p, []), "no row beneath the header"),
    "missing label": (lambda p: write(p, [("red fish",)]), "line 2: a text or label is missing"),
    "missing text": (lambda p: write(p, [*ROWS, ("", "fish")]), "line 4: a text or label"),
    "latin-1": (lambda p: write(p, [("façade", "fish")], encoding="latin-1"), "in UTF-8"),
    "quotes": (lambda p: p.write_text('text,category\n"open,fish\n'), "not a readable CSV file"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_file_is_named(texts, breakage):
    break_it, message = BREAKAGES[breakage]
    break_it(texts / "train.csv")
    with pytest.raises(DataFileError, match=message) as caught:
        load("text-csv", data_dir=texts)
    assert "train.csv" in str(caught.value)


def test_a_test_label_without_training_text_is_named(texts):
    write(texts / "test.csv", [("moo", "cow")])
    with pytest.raises(DataFileError, match="test label 'cow' has no training example"):
        load("text-csv", data_dir=texts)


def test_a_missing_file_is_named(texts):
    (texts / "test.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file test\.csv. Expected train\.csv"):
        load("text-csv", data_dir=texts)


def test_texts_without_a_repeated_term_are_refused(tmp_path):
    for name in ("train", "test"):
        write(tmp_path / f"{name}.csv", [("red fish", "fish"), ("blue bird", "bird")])
    with pytest.raises(ValueError, match="no term occurs in min_df=2 of the 2 training texts"):
        load("text-csv", data_dir=tmp_path)


@pytest.mark.parametrize("settings", [{"max_features": 0}, {"min_df": 0}, {"ngram_range": (2, 1)}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Tfidf(**settings)


def test_tabs_part_columns_and_quotes_are_letters(tmp_path):
    rows = ['red "fish swims\t1', "blue, bird flies\t0"]
    for part in ("train", "dev"):
        content = "\n".join(["sentence\tlabel", *rows, ""])
        (tmp_path / f"{part}.tsv.xz").write_bytes(lzma.compress(content.encode()))
    splits = load("sst-2", data_dir=tmp_path, options={"min_df": 1, "ngram_range": [1, 1]})
    assert splits.class_names == ("0", "1")
    assert splits.train.target.tolist() == [1, 0]
    assert splits.extras["vocabulary"] == ["bird", "blue", "fish", "flies", "red", "swims"]


def test_banking77_is_found_in_its_folder(tmp_path):
    (tmp_path / "banking77").mkdir()
    for part in ("train", "test"):
        write(tmp_path / "banking77" / f"{part}.csv", [("my card", "card"), ("my loan", "loan")])
    splits = load("banking77", data_dir=tmp_path, options={"min_df": 1})
    assert splits.class_names == ("card", "loan")
    with pytest.raises(ValueError, match="needs data_dir"):
        load("banking77")
    with pytest.raises(ValueError, match="has no option 'min_dif'; its options: train"):
        load("banking77", data_dir=tmp_path, options={"min_dif": 1})
