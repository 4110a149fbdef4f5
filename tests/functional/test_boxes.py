"""Boxes: areas and overlaps against pixel sets, boxes from maps against brute force, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lastlayer.functional.boxes import (
    box_area,
    box_iou,
    box_sums,
    clip_boxes,
    inclusive_to_half_open,
)
from lastlayer.functional.map_boxes import (
    boxes_from_maps,
    connected_boxes,
    normalize_maps,
    resize_maps,
)

EMPTY = [0, 0, 0, 0]
corner = st.integers(-3, 9)
box = st.tuples(corner, corner, corner, corner)


def pixels(box):
    left, top, right, bottom = box
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


@given(box, box)
def test_overlap_is_that_of_the_sets_of_pixels(a, b):
    mine, theirs = pixels(a), pixels(b)
    union = len(mine | theirs)
    expected = len(mine & theirs) / union if union else 0.0
    assert float(box_iou(torch.tensor(a), torch.tensor(b))) == pytest.approx(expected, abs=1e-15)
    assert int(box_area(torch.tensor(a))) == len(mine)


def test_boxes_apart_in_both_directions_do_not_overlap():
    assert box_iou(torch.tensor([0, 0, 2, 2]), torch.tensor([5, 5, 9, 9])) == 0


def test_identical_boxes_of_one_pixel_overlap_wholly_in_both_conventions():
    half_open = torch.tensor([3, 4, 4, 5])
    assert box_iou(half_open, half_open) == 1
    inclusive = torch.tensor([3, 4, 3, 4])
    converted = inclusive_to_half_open(inclusive)
    assert box_iou(converted, converted) == 1
    assert torch.equal(converted, half_open)


def test_the_plus_one_convention_is_that_of_converted_boxes():
    a, b = torch.tensor([0, 0, 3, 3]), torch.tensor([2, 2, 5, 5])  # 4 x 4 pixels each, 2 x 2 shared
    found = box_iou(inclusive_to_half_open(a), inclusive_to_half_open(b))
    assert float(found) == pytest.approx(4 / 28)


def test_an_empty_box_overlaps_nothing_not_even_itself():
    empty = torch.tensor(EMPTY)
    assert box_iou(empty, empty) == 0
    assert box_iou(empty, torch.tensor([0, 0, 1, 1])) == 0


def test_overlaps_of_fractions_are_exact():
    a, b = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.5, 0.0, 1.5, 1.0])
    assert float(box_iou(a, b)) == pytest.approx(1 / 3, rel=1e-15)


def test_overlaps_broadcast():
    boxes = torch.tensor([[0, 0, 2, 2], [1, 1, 3, 3]])
    table = box_iou(boxes.unsqueeze(1), boxes)
    assert table.shape == (2, 2)
    assert table.diagonal().tolist() == [1, 1]
    assert torch.equal(table, table.T)


def test_clipped_boxes_hold_the_pixels_inside_the_image():
    for each in ([-2, -1, 4, 9], [1, 1, 2, 2], [7, 0, 9, 3], [-5, -5, -1, 2], EMPTY):
        clipped = clip_boxes(torch.tensor(each), (5, 6)).tolist()
        inside = {(x, y) for x, y in pixels(each) if 0 <= x < 6 and 0 <= y < 5}
        assert pixels(clipped) == inside
        assert inside or clipped == EMPTY


def test_sums_within_boxes_are_sums_of_slices():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, 5, 7, generator=generator)
    boxes = torch.tensor([[0, 0, 7, 5], [2, 1, 5, 4], [6, 4, 7, 5], EMPTY]).expand(3, 4, 4)
    found = box_sums(values, boxes)
    for image in range(3):
        for index, (left, top, right, bottom) in enumerate(boxes[image].tolist()):
            expected = float(values[image, top:bottom, left:right].double().sum())
            assert float(found[image, index]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("function", [box_area, inclusive_to_half_open])
def test_what_is_no_box_is_refused(function):
    with pytest.raises(ValueError, match=r"boxes must have shape \(\*, 4\)"):
        function(torch.zeros(3))


def components(mask, connectivity):
    """Flood fill: the components' sets of pixels in reading order of their first one."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        component, frontier = {start}, [start]
        while frontier:
            y, x = frontier.pop()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    near = (y + dy, x + dx)
                    if near in left and (connectivity == 8 or dy == 0 or dx == 0):
                        left.discard(near)
                        component.add(near)
                        frontier.append(near)
        found.append(component)
    return found


def bounding(component):
    rows, columns = [y for y, _ in component], [x for _, x in component]
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


masks = arrays.arrays(
    bool, st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)), elements=st.booleans()
)


@given(masks, st.sampled_from([4, 8]))
@settings(max_examples=80)
def test_components_are_those_of_a_flood_fill(mask, connectivity):
    found = connected_boxes(torch.from_numpy(mask), connectivity)
    expected = [
        (image, bounding(c), len(c))
        for image, each in enumerate(mask)
        for c in components(each, connectivity)
    ]
    rows = zip(found.image.tolist(), found.boxes.tolist(), found.area.tolist(), strict=True)
    assert list(rows) == expected
    boxes = boxes_from_maps(
        torch.from_numpy(mask).double(), 0.5, normalization="none", connectivity=connectivity
    )
    for image, each in enumerate(mask):
        parts = components(each, connectivity)
        largest = max(parts, key=len) if parts else None  # the first of equal ones
        assert boxes[image].tolist() == (bounding(largest) if largest else EMPTY)


def test_of_two_equal_components_the_first_in_reading_order_is_boxed():
    mask = torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
    assert boxes_from_maps(mask, 0.5).tolist() == [[2, 0, 3, 2]]
    assert boxes_from_maps(mask.flip(2), 0.5).tolist() == [[0, 0, 1, 2]]


def test_a_component_at_the_border_is_boxed_to_the_border():
    maps = torch.zeros(1, 4, 6)
    maps[0, 2:, 3:] = 1.0
    assert boxes_from_maps(maps, 0.5).tolist() == [[3, 2, 6, 4]]


def test_a_strict_threshold_at_the_maximum_leaves_nothing_and_the_other_keeps_the_maximum():
    maps = torch.tensor([[[0.0, 1.0], [3.0, 1.0]]])
    assert boxes_from_maps(maps, 1.0).tolist() == [[0, 1, 1, 2]]
    assert boxes_from_maps(maps, 1.0, strict=True).tolist() == [EMPTY]
    assert boxes_from_maps(maps, 0.0).tolist() == [[0, 0, 2, 2]]
    assert boxes_from_maps(maps, 0.0, strict=True).tolist() == [[0, 0, 2, 2]]  # 3 pixels of 4


def test_a_constant_map_has_an_empty_box_at_every_threshold():
    maps = torch.stack([torch.zeros(3, 3), torch.full((3, 3), 0.1), torch.full((3, 3), -7.3)])
    for size in (None, (12, 17)):
        for threshold in (0.0, 0.5, 1.0):
            for normalization in ("min-max", "max"):
                found = boxes_from_maps(maps, threshold, size=size, normalization=normalization)
                if normalization == "max" and size is None:
                    assert found.tolist() == [EMPTY, [0, 0, 3, 3], EMPTY]
                elif normalization == "min-max":
                    assert found.tolist() == [EMPTY] * 3


def test_a_map_of_negative_numbers_is_boxed_where_it_is_greatest():
    maps = -torch.tensor([[[5.0, 4.0, 1.0], [5.0, 5.0, 1.5]]])
    assert boxes_from_maps(maps, 0.5).tolist() == [[2, 0, 3, 2]]
    assert boxes_from_maps(maps, 0.5, normalization="max").tolist() == [EMPTY]


def test_a_map_of_one_cell_has_an_empty_box():
    assert boxes_from_maps(torch.ones(1, 1, 1), 0.5, size=(8, 8)).tolist() == [EMPTY]


def test_boxes_do_not_depend_on_scale_and_offset():
    maps = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first = boxes_from_maps(maps, 0.6, size=(16, 18))
    assert torch.equal(boxes_from_maps(7.5 * maps - 3.0, 0.6, size=(16, 18)), first)


def test_stretching_puts_the_cell_where_it_lies_in_the_image():
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 2] = 1.0
    assert boxes_from_maps(maps, 0.5, size=(16, 32), interpolation="nearest").tolist() == [
        [16, 4, 24, 8]
    ]
    found = boxes_from_maps(maps, 0.5, size=(16, 32))
    assert box_iou(found[0], torch.tensor([16, 4, 24, 8])) > 0.5


def test_bilinear_stretching_is_that_of_cells_as_areas():
    row = resize_maps(torch.tensor([[[0.0, 1.0]]], dtype=torch.float64), (1, 6))
    centers = (np.arange(6) + 0.5) / 6 * 2 - 0.5
    np.testing.assert_allclose(row[0, 0], np.interp(centers, [0, 1], [0, 1]), atol=1e-12)


def test_normalized_maps_span_zero_to_one_each_by_itself():
    maps = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    scaled = normalize_maps(maps)
    assert scaled.amin((1, 2)).tolist() == [0.0] * 4
    assert scaled.amax((1, 2)).tolist() == [1.0] * 4
    positive = normalize_maps(maps, "max")
    torch.testing.assert_close(
        positive, maps.clamp_min(0) / maps.amax((1, 2), keepdim=True), rtol=1e-6, atol=0
    )
    assert torch.equal(normalize_maps(maps, "none"), maps)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_map_that_is_not_finite_is_refused(bad):
    maps = torch.zeros(3, 2, 2)
    maps[1, 0, 1] = bad
    with pytest.raises(ValueError, match="maps must be finite; that of example 1"):
        boxes_from_maps(maps, 0.5)


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (torch.zeros(2, 2), {}, r"maps must have shape \(N, h, w\); got \(2, 2\)"),
        (torch.zeros(1, 0, 2), {}, r"got \(1, 0, 2\)"),
        (torch.zeros(1, 2, 2), {"size": (4,)}, "size must be"),
        (torch.zeros(1, 2, 2), {"size": (4, 0)}, "size must be"),
        (torch.zeros(1, 2, 2), {"interpolation": "area", "size": (4, 4)}, "interpolation must"),
        (torch.zeros(1, 2, 2), {"normalization": "softmax"}, "normalization must be one of"),
        (torch.zeros(1, 2, 2), {"connectivity": 6}, "connectivity must be one of 4, 8"),
    ],
)
def test_what_is_no_map_is_refused(maps, options, message):
    with pytest.raises(ValueError, match=message):
        boxes_from_maps(maps, 0.5, **options)


def test_no_map_has_no_box():
    assert boxes_from_maps(torch.zeros(0, 2, 2), 0.5).shape == (0, 4)
