"""Localization metrics against counting by hand and by brute force."""

from __future__ import annotations

import pytest
import torch

from lastlayer.functional.boxes import box_iou
from lastlayer.functional.localization import (
    THRESHOLDS,
    box_accuracy,
    gt_known_localization,
    localized,
    top1_localization,
)
from lastlayer.functional.map_boxes import boxes_from_maps, connected_boxes

EMPTY = [0, 0, 0, 0]
BOXES = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 4], [2, 2, 4, 4], EMPTY])
TRUTH = torch.tensor([[0, 0, 4, 2], [0, 0, 4, 1], [2, 2, 4, 4], [0, 0, 4, 4]])  # .5, .25, 1, 0


def smooth_maps(n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, 5, 6, generator=generator, dtype=torch.float64)
    corners = torch.randint(0, 8, (n, 2), generator=generator)
    sides = torch.randint(3, 8, (n, 2), generator=generator)
    return maps, torch.cat((corners, corners + sides), dim=1)


def test_a_hit_reaches_the_threshold():
    assert localized(BOXES, TRUTH).tolist() == [True, False, True, False]
    assert localized(BOXES, TRUTH, iou_threshold=0.25).tolist() == [True, True, True, False]
    assert gt_known_localization(BOXES, TRUTH) == 0.5


def test_top1_asks_for_the_class_too():
    target = torch.tensor([1, 2, 3, 4])
    assert top1_localization(BOXES, TRUTH, target, target) == 0.5
    assert top1_localization(BOXES, TRUTH, torch.tensor([1, 2, 0, 4]), target) == 0.25


def test_the_best_of_several_true_boxes_counts():
    several = torch.stack([torch.zeros_like(TRUTH), TRUTH, torch.tensor([[9, 9, 10, 10]] * 4)], 1)
    assert torch.equal(localized(BOXES, several), localized(BOXES, TRUTH))


@pytest.mark.parametrize("components", ["largest", "all"])
@pytest.mark.parametrize("strict", [False, True])
def test_the_sweep_counts_the_hits_at_every_threshold(components, strict):
    maps, truth = smooth_maps()
    levels = (0.3, 0.5, 0.7)
    found = box_accuracy(
        maps, truth, size=(15, 18), iou_thresholds=levels, components=components, strict=strict
    )
    assert found.accuracy.shape == (3, 20)
    for column, threshold in enumerate(THRESHOLDS):
        best = []
        for each, true in zip(maps, truth, strict=True):
            options = {"size": (15, 18), "strict": strict}
            box = boxes_from_maps(each[None], threshold, **options)[0]
            overlap = float(box_iou(box, true))
            if components == "all":
                big = torch.nn.functional.interpolate(each[None, None], (15, 18), mode="bilinear")
                scaled = (big[0] - big.min()) / (big.max() - big.min())
                mask = scaled > threshold if strict else scaled >= threshold
                boxes = connected_boxes(mask).boxes
                overlap = max((float(box_iou(b, true)) for b in boxes), default=0.0)
            best.append(overlap)
        for row, level in enumerate(levels):
            expected = sum(overlap >= level for overlap in best) / len(maps)
            assert float(found.accuracy[row, column]) == pytest.approx(expected)
    assert torch.equal(found.best, found.accuracy.max(1).values)
    assert found.mean == pytest.approx(float(found.accuracy.max(1).values.mean()))
    for row in range(3):
        first = int(found.accuracy[row].argmax())
        assert float(found.best_threshold[row]) == THRESHOLDS[first]
    assert torch.equal(found.hits.double().mean(-1), found.accuracy)


def test_all_components_never_find_less_than_the_largest():
    maps, truth = smooth_maps(seed=1)
    largest, everything = (
        box_accuracy(maps, truth, size=(15, 18), iou_thresholds=(0.3,), components=c).accuracy
        for c in ("largest", "all")
    )
    assert (everything >= largest).all()


def test_a_perfect_map_is_a_hit_at_every_threshold_above_zero():
    maps = torch.zeros(2, 8, 8)
    truth = torch.tensor([[1, 2, 5, 6], [3, 0, 8, 3]])
    for each, (left, top, right, bottom) in zip(maps, truth.tolist(), strict=True):
        each[top:bottom, left:right] = 1.0
    accuracy = box_accuracy(maps, truth, iou_thresholds=(1.0,)).accuracy[0]
    assert accuracy.tolist() == [0.0] + [1.0] * 19


def test_flat_maps_find_nothing():
    found = box_accuracy(torch.zeros(3, 4, 4), torch.tensor([[0, 0, 4, 4]] * 3))
    assert found.accuracy.eq(0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: localized(BOXES, TRUTH[:3]), r"boxes must have shape \(N, 4\) and truth"),
        (lambda: localized(BOXES, TRUTH, iou_threshold=0.0), "iou_threshold must be above 0"),
        (lambda: localized(BOXES, TRUTH, iou_threshold=1.5), r"iou_threshold must lie in \[0, 1\]"),
        (lambda: gt_known_localization(BOXES[:0], TRUTH[:0]), "at least one example"),
        (
            lambda: top1_localization(BOXES, TRUTH, torch.zeros(3), torch.zeros(4)),
            r"prediction must have shape \(4,\)",
        ),
        (lambda: box_accuracy(torch.zeros(0, 2, 2), TRUTH[:0]), "at least one example"),
        (lambda: box_accuracy(torch.zeros(4, 2, 2), TRUTH, thresholds=()), "must not be empty"),
        (lambda: box_accuracy(torch.zeros(4, 2, 2), TRUTH, components="some"), "components must"),
    ],
)
def test_what_cannot_be_counted_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
