"""Digit canvases and collages: places, boxes, noise, seeds, errors."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from lastlayer.data import load
from lastlayer.data.canvases import canvas_parts, digit_canvases, ink_boxes, read_digits
from lastlayer.data.collages import digit_collages


def digits(n=50, channels=1, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, side, side, generator=generator), torch.arange(n) % 10


def test_boxes_hold_all_of_the_digits_ink_and_no_more():
    raw = read_digits()
    noiseless = digit_canvases(raw.test.inputs, raw.test.target, noise=0.0, seed=3)
    ink = noiseless.images[:, 0] > 0.3
    for mask, (left, top, right, bottom) in zip(ink, noiseless.boxes.tolist(), strict=True):
        rows, columns = mask.nonzero().unbind(1)
        assert [left, top] == [int(columns.min()), int(rows.min())]
        assert [right, bottom] == [int(columns.max()) + 1, int(rows.max()) + 1]
    assert noiseless.boxes.min() >= 0
    assert noiseless.boxes.max() <= 32


def test_noise_is_uniform_and_leaves_boxes_and_ink_alone():
    raw = read_digits()
    plain, noisy = (
        digit_canvases(raw.test.inputs, raw.test.target, noise=noise, seed=1)
        for noise in (0.0, 0.1)
    )
    assert torch.equal(plain.boxes, noisy.boxes)
    difference = (noisy.images - plain.images)[plain.images < 0.9]
    assert difference.min() >= -1e-6
    assert stats.kstest(difference[:20_000].double().numpy() / 0.1, "uniform").pvalue > 1e-6
    assert noisy.images.max() <= 1.0


def test_ones_become_squares_of_every_size_at_every_place():
    n = 4000
    canvases = digit_canvases(
        torch.ones(n, 1, 8, 8), torch.zeros(n).long(), size=18, smallest=12, largest=16
    )
    width = canvases.boxes[:, 2] - canvases.boxes[:, 0]
    height = canvases.boxes[:, 3] - canvases.boxes[:, 1]
    assert torch.equal(width, height)
    counts = torch.bincount(width, minlength=17)[12:]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-6
    for edge in (0, 1):
        left = canvases.boxes[width == 16, edge]
        assert stats.chisquare(torch.bincount(left, minlength=3).numpy()).pvalue > 1e-6


def test_a_digit_of_its_own_size_is_pasted_unchanged():
    images, target = digits(channels=3, side=12)
    canvases = digit_canvases(
        images, target, smallest=12, largest=12, noise=0.0, box_threshold=0.0, size=20
    )
    for image, digit, (left, top, right, bottom) in zip(
        canvases.images, images, canvases.boxes.tolist(), strict=True
    ):
        torch.testing.assert_close(image[:, top:bottom, left:right], digit)
        assert float(image.sum()) == pytest.approx(float(digit.sum()), rel=1e-5)


def test_seeds_fix_canvases_and_collages_and_differ():
    images, target = digits()
    for make in (
        lambda seed: digit_canvases(images, target, seed=seed),
        lambda seed: digit_collages(images, target, 3, seed=seed),
    ):
        first, again, other = make(5), make(5), make(6)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first.images, other.images)


def test_bytes_are_the_same_digits():
    images, target = digits()
    as_bytes = (images * 255).round().to(torch.uint8)
    found = digit_canvases(as_bytes, target)
    expected = digit_canvases(as_bytes.float() / 255, target)
    torch.testing.assert_close(found.images, expected.images)


def test_a_blank_digit_has_an_empty_box():
    canvases = digit_canvases(torch.zeros(2, 1, 8, 8), torch.zeros(2).long())
    assert canvases.boxes.tolist() == [[0, 0, 0, 0]] * 2
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 3, 4] = True
    assert ink_boxes(mask).tolist() == [[4, 3, 5, 4]]


def test_the_source_trains_as_any_other_and_matches_its_parts():
    splits = load("digit-canvas", train_size=200, validation_size=100)
    assert splits.input_shape == (1, 32, 32)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (200, 100, 500)
    assert splits.class_names == tuple("0123456789")
    _, test = canvas_parts(read_digits())
    assert torch.equal(splits.test.inputs, test.images)
    assert torch.equal(splits.test.target, test.target)


def test_the_sources_options_reach_the_canvases():
    options = {"size": 20, "smallest": 8, "largest": 10, "noise": 0.0, "canvas_seed": 4}
    splits = load("digit-canvas", options=options)
    parts = canvas_parts(read_digits(), size=20, smallest=8, largest=10, noise=0.0, seed=4)
    assert torch.equal(splits.train.inputs, parts[0].images)
    assert not torch.equal(parts[0].images[:500], parts[1].images)


def test_canvases_of_mnist_have_its_counts(make_mnist):
    splits = load("digit-canvas", data_dir=make_mnist(), options={"source": "mnist", "size": 64})
    assert (len(splits.train), len(splits.test)) == (40, 20)
    assert splits.input_shape == (1, 64, 64)


def test_collages_show_the_digits_in_their_boxes_and_nothing_between():
    images, target = digits()
    collages = digit_collages(images, target, 5, chosen=4, rows=2, columns=3, gap=2, seed=1)
    assert collages.images.shape == (5, 1, 22, 32)
    assert collages.labels.eq(4).sum(1).tolist() == [3] * 5
    rest = collages.images.clone()
    for image, boxes, labels in zip(
        range(5), collages.boxes.tolist(), collages.labels, strict=True
    ):
        for (left, top, right, bottom), label in zip(boxes, labels.tolist(), strict=True):
            cell = collages.images[image, :, top:bottom, left:right]
            same = (images == cell).flatten(1).all(1)
            assert target[same].tolist() == [label]
            rest[image, :, top:bottom, left:right] = 0
    assert not rest.any()


def test_digits_of_a_collage_differ_and_stand_everywhere():
    images, target = digits()
    collages = digit_collages(images, target, 600, rows=2, columns=2, chosen_count=1)
    where = (collages.labels == 0).int().argmax(1)
    assert stats.chisquare(torch.bincount(where, minlength=4).numpy()).pvalue > 1e-6
    many = digit_collages(images[:12], target[:12], 20, rows=3, columns=4, chosen_count=2)
    for labels in many.labels:
        assert sorted(labels.tolist()) == sorted(target[:12].tolist())  # none drawn twice


def test_no_chosen_digit_or_only_chosen_ones():
    images, target = digits()
    for number in (0, 4):
        labels = digit_collages(
            images, target, 3, chosen=2, chosen_count=number, rows=2, columns=2
        ).labels
        assert labels.eq(2).sum(1).tolist() == [number] * 3


IMAGES, TARGET = digits(12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: digit_canvases(IMAGES, TARGET, largest=33), "smallest <= largest <= size"),
        (lambda: digit_canvases(IMAGES, TARGET, smallest=17), "smallest=17, largest=16"),
        (lambda: digit_canvases(IMAGES, TARGET, smallest=0), "smallest must be a whole number"),
        (lambda: digit_canvases(IMAGES, TARGET, noise=1.5), r"noise must lie in \[0, 1\]"),
        (lambda: digit_canvases(IMAGES, TARGET, seed=-1), "seed must be"),
        (lambda: digit_canvases(2 * IMAGES, TARGET), r"digits must lie in \[0, 1\]"),
        (lambda: digit_canvases(IMAGES * math.nan, TARGET), r"digits must lie in \[0, 1\]"),
        (lambda: digit_canvases(IMAGES[0], TARGET), r"digits must have shape \(N, C, h, w\)"),
        (lambda: digit_canvases(IMAGES[:0], TARGET[:0]), "N at least 1"),
        (lambda: digit_collages(IMAGES, TARGET, 0), "count must be a whole number"),
        (lambda: digit_collages(IMAGES, TARGET, 1, chosen_count=13), r"lie in \[0, 12\]"),
        (
            lambda: digit_collages(IMAGES, TARGET, 1, chosen=0),
            "needs 3 digits of class 0; there are 2",
        ),
        (
            lambda: digit_collages(IMAGES, TARGET, 1, chosen_count=1),
            "needs 11 digits of other classes; there are 10",
        ),
        (lambda: digit_collages(IMAGES, TARGET, 1, gap=-1), "gap must be"),
        (
            lambda: load("digit-canvas", options={"source": "digit"}),
            "Did you mean 'digits'|Did you mean 'digit-canvas'",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_source_without_images_is_refused(monkeypatch):
    from lastlayer.data import SOURCES, Examples, Raw

    monkeypatch.setattr(SOURCES, "_parts", dict(SOURCES._parts))
    monkeypatch.setattr(SOURCES, "_descriptions", dict(SOURCES._descriptions))

    @SOURCES.register("vectors", description="two vectors")
    def vectors(data_dir=None):
        examples = Examples(torch.zeros(2, 3), torch.tensor([0, 1]))
        return Raw(train=examples, test=examples, class_names=("a", "b"), kind="vector")

    with pytest.raises(ValueError, match="source must be one of images; 'vectors' is of kind"):
        load("digit-canvas", options={"source": "vectors"})
