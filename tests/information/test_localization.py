"""Boxes from maps beside true ones, counted by hand."""

from __future__ import annotations

import pytest
import torch

from lastlayer.functional.map_boxes import boxes_from_maps
from lastlayer.information import localization


def overlap(box: list[int], other: list[int]) -> float:
    """Intersection over union, pixel by pixel."""
    first, second = (
        {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (box, other)
    )
    return len(first & second) / len(first | second)


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smooth bumps at random places; a true box around, and a second or an empty one."""
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(40, 2, generator=generator) * 8
    grid = torch.arange(8.0)
    maps = torch.exp(-((grid[:, None] - place[:, 1, None, None]) ** 2) / 6) * torch.exp(
        -((grid[None, :] - place[:, 0, None, None]) ** 2) / 6
    )
    corner = (2 * place + torch.randn(40, 2, generator=generator)).clamp(0, 10).long()
    first = torch.cat([corner, corner + 6], 1)
    second = torch.where(torch.arange(40)[:, None] % 2 == 0, first.roll(1, 0), 0)
    target = torch.randint(3, (40,), generator=generator)
    prediction = torch.where(torch.rand(40, generator=generator) < 0.7, target, 3)
    return maps, torch.stack([first, second], 1), prediction, target


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_every_figure_is_a_count_by_hand(threshold):
    maps, truth, prediction, target = problem()
    found = localization(maps, truth, prediction, target, size=(16, 16), threshold=threshold)
    boxes = boxes_from_maps(maps, threshold, size=(16, 16)).tolist()
    best = [
        max(overlap(box, other) for other in others if other[2] > other[0])
        for box, others in zip(boxes, truth.tolist(), strict=True)
    ]
    hits = [value >= 0.5 for value in best]
    right = (prediction == target).tolist()
    assert found.mean_iou == pytest.approx(sum(best) / 40)
    assert found.gt_known == sum(hits) / 40
    assert found.top1 == sum(h and r for h, r in zip(hits, right, strict=True)) / 40
    assert 0 < found.top1 < found.gt_known < 1
    sweep = {
        step / 20: localization(
            maps, truth, prediction, target, size=(16, 16), threshold=step / 20
        ).gt_known
        for step in range(20)
    }
    assert found.max_box_acc == max(sweep.values())
    assert found.best_threshold == pytest.approx(
        min(t for t, share in sweep.items() if share == max(sweep.values()))
    )


def test_a_stricter_overlap_has_fewer_hits_and_one_box_each_may_be_given():
    maps, truth, prediction, target = problem()
    loose, strict = (
        localization(
            maps, truth[:, 0], prediction, target, size=(16, 16), iou_threshold=least
        ).gt_known
        for least in (0.3, 0.7)
    )
    assert strict < loose
    row = str(localization(maps, truth[:, 0], prediction, target, size=(16, 16))).splitlines()[1]
    assert row.split()[0] == "0.5"


def test_what_does_not_fit_is_refused():
    maps, truth, prediction, target = problem()
    for change, match in (
        ({"threshold": 1.5}, "threshold must"),
        ({"iou_threshold": 0.0}, "iou_threshold must be above 0"),
        ({"boxes": truth[1:]}, "boxes must have shape"),
        ({"prediction": prediction[1:]}, "prediction must have shape"),
        ({"maps": maps / 0}, "maps must be finite"),
    ):
        given = {"maps": maps, "boxes": truth, "prediction": prediction, "target": target} | change
        with pytest.raises(ValueError, match=match):
            localization(**given, size=(16, 16))
