import csv

import numpy as np
import pytest
import torch
from PIL import Image

from lastlayer.data import load
from lastlayer.experiments.predict import predict_file
from lastlayer.training import RunConfig, RunDirectory, train


@pytest.fixture(scope="module")
def run(comparison):
    return RunDirectory(comparison.folder / "softmax-seed0")


@pytest.fixture(scope="module")
def images():
    return load("digits").test.inputs[:6]


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_the_test_images_get_the_probabilities_of_the_run(run, images, tmp_path):
    predictions = predict_file(run.path, save(tmp_path / "x.npz", x=images.numpy()))
    expected = run.predictions()["log_prob"][:6].exp()
    torch.testing.assert_close(predictions.prob, expected, rtol=1e-5, atol=1e-7)
    assert predictions.examples == ["0", "1", "2", "3", "4", "5"]
    assert predictions.class_names == [str(digit) for digit in range(10)]


def test_grey_images_may_come_without_a_channel_and_as_bytes(run, images, tmp_path):
    pixels = (images * 255).round().to(torch.uint8)
    as_bytes = predict_file(run.path, save(tmp_path / "b.npz", x=pixels[:, 0].numpy()))
    as_floats = predict_file(run.path, save(tmp_path / "f.npz", x=(pixels / 255).numpy()))
    torch.testing.assert_close(as_bytes.prob, as_floats.prob)


def test_image_files_are_read_and_scaled_to_the_run(run, images, tmp_path):
    pixels = (images[0, 0] * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "b.png")
    Image.fromarray(pixels).convert("RGB").resize((80, 80), 0).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("not an image")
    folder = predict_file(run.path, tmp_path)
    assert folder.examples == ["a.png", "b.png"]
    single = predict_file(run.path, tmp_path / "b.png")
    torch.testing.assert_close(folder.prob[1:], single.prob)
    array = predict_file(run.path, save(tmp_path / "x.npz", x=pixels[None]))
    torch.testing.assert_close(array.prob, single.prob)


def test_all_probabilities_go_to_a_csv(run, images, tmp_path):
    out = tmp_path / "out.csv"
    predictions = predict_file(run.path, save(tmp_path / "x.npz", x=images.numpy()), out=out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row, prob in zip(rows, predictions.prob, strict=True):
        assert row["prediction"] == str(int(prob.argmax()))
        assert sum(float(row[name]) for name in predictions.class_names) == pytest.approx(
            1, abs=1e-4
        )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 9, 9)), r"x must have shape \(N, 1, 8, 8\); got \(2, 9, 9\)"),
        (np.zeros((2, 3, 8, 8)), r"got \(2, 3, 8, 8\)"),
        (np.zeros(3), r"got \(3,\)"),
        (np.full((1, 8, 8), np.nan), "finite"),
        (np.zeros((0, 8, 8)), "no example"),
        (np.array(["a"]), "numbers"),
    ],
)
def test_an_array_of_another_kind_is_refused(run, tmp_path, array, message):
    path = save(tmp_path / "x.npz", x=array)
    with pytest.raises(ValueError, match=message) as caught:
        predict_file(run.path, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04cut", "npy"])
def test_a_damaged_array_file_is_named(run, tmp_path, content):
    path = tmp_path / "x.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}: not a readable \.npz"):
        predict_file(run.path, path)


def test_other_files_are_refused(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        predict_file(run.path, tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="named x"):
        predict_file(run.path, save(tmp_path / "y.npz", y=np.zeros(3)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none"):
        predict_file(run.path, tmp_path / "empty")
    for name, message in (("a.txt", "expected .npz"), ("a.png", "not a readable image")):
        (tmp_path / name).write_text("text")
        with pytest.raises(ValueError, match=message):
            predict_file(run.path, tmp_path / name)
    (tmp_path / "texts.csv").write_text("text\nhello\n")
    with pytest.raises(ValueError, match="not trained on texts"):
        predict_file(run.path, tmp_path / "texts.csv")


TEXTS = {"fish": "red fish blue fish", "bird": "green bird loud bird"}


@pytest.fixture(scope="module")
def text_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    lines = [
        "body,category",
        *(f"{text} {n},{kind}" for n in range(6) for kind, text in TEXTS.items()),
    ]
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text("\n".join(lines) + "\n")
    settings = {
        "data": {
            "name": "text-csv",
            "data_dir": str(folder),
            "validation_size": 0,
            "options": {"text_column": "body"},
        },
        "model": {"options": {"hidden": [8]}},
        "optimizer": {"lr": 0.05},
        "training": {"steps": 30, "batch_size": 6},
    }
    return train(RunConfig().updated(settings), folder / "run")


def test_texts_are_encoded_as_in_training(text_run, tmp_path):
    assert text_run.summary()["metrics"]["error"] == 0
    (tmp_path / "new.csv").write_text("body\nblue fish\nloud bird\n")
    predictions = predict_file(text_run.path, tmp_path / "new.csv")
    best = [predictions.class_names[k] for k in predictions.prob.argmax(dim=-1).tolist()]
    assert best == ["fish", "bird"]
    assert predictions.examples == ["blue fish", "loud bird"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\nhello\n", "a column named body; got .'text'."),
        (b"", "a column named body"),
        (b"body\n", "no text"),
        (b"body\n\xff\xfe\n", "UTF-8"),
        (b'body\n"open\n', "not a readable CSV"),
    ],
)
def test_a_damaged_text_file_is_named(text_run, tmp_path, content, message):
    path = tmp_path / "new.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        predict_file(text_run.path, path)
    assert str(path) in str(caught.value)


def test_an_image_for_a_run_of_vectors_is_refused(text_run, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="takes vectors"):
        predict_file(text_run.path, tmp_path / "a.png")


def test_an_unfinished_run_says_so(tmp_path):
    run = RunDirectory.create(tmp_path / "run", RunConfig())
    with pytest.raises(FileNotFoundError, match="not finished"):
        predict_file(run.path, tmp_path)
