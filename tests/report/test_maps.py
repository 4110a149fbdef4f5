"""Pictures of class maps and of filtered images."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from lastlayer.report import filtering_figure, map_overlays, save_figure


def images(n=2, *shape):
    return torch.rand(n, *(shape or (1, 8, 12)), generator=torch.Generator().manual_seed(0))


def maps(n=2, h=4, w=6):
    return torch.randn(n, h, w, generator=torch.Generator().manual_seed(1))


def rectangles(axes):
    found = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in found]


def test_every_map_is_drawn_over_its_image_on_its_own_symmetric_scale():
    first, second = maps(), 100 * maps().flip(0)
    figure = map_overlays(images(), {"CAM": first, "infoCAM": second}, titles=["a", "b"])
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "CAM", "infoCAM"]
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["a", "b"]
    for index, (row, values) in enumerate([(0, first), (0, second), (1, first), (1, second)]):
        axes = figure.axes[[1, 2, 4, 5][index]]
        drawn = axes.images[1]
        expected = values[row] / values[row].abs().max()
        np.testing.assert_allclose(np.asarray(drawn.get_array()), expected.numpy(), rtol=1e-6)
        assert drawn.get_clim() == (-1, 1)
        assert list(drawn.get_extent()) == [-0.5, 11.5, 7.5, -0.5]


def test_half_open_boxes_enclose_their_pixels_and_empty_ones_are_not_drawn():
    truth = torch.tensor([[[2, 1, 5, 4], [0, 0, 0, 0]], [[0, 0, 12, 8], [3, 3, 4, 4]]])
    found = torch.tensor([[0, 0, 0, 0], [1, 1, 2, 3]])
    figure = map_overlays(images(), {"CAM": maps()}, truth=truth, boxes={"CAM": found})
    assert rectangles(figure.axes[0]) == [(1.5, 0.5, 3, 3)]
    assert rectangles(figure.axes[1]) == [(1.5, 0.5, 3, 3)]
    assert rectangles(figure.axes[3]) == [(-0.5, -0.5, 12, 8), (2.5, 2.5, 1, 1), (0.5, 0.5, 1, 2)]


def test_an_all_zero_map_leaves_the_image_bare():
    figure = map_overlays(images(), {"infoCAM+": torch.zeros(2, 4, 6)})
    assert not np.asarray(figure.axes[1].images[1].get_alpha()).any()


@pytest.mark.parametrize("shape", [(8, 12), (1, 8, 12), (3, 8, 12), (8, 12, 3)])
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_pictures_are_saved_whatever_the_images_channels(tmp_path, shape, suffix):
    figure = map_overlays(
        images(2, *shape), {"CAM": maps()}, truth=torch.tensor([[0, 0, 4, 4]] * 2)
    )
    path = save_figure(figure, tmp_path / f"maps.{suffix}", dpi=50)
    if suffix == "svg":
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        with Image.open(path) as image:
            assert image.format == "PNG"


def test_filtering_shows_before_after_and_the_heat_at_the_windows_centres():
    before = images()
    after = before.clone()
    after[..., :6] = 0.0
    heat = 4 * torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(2))
    figure = filtering_figure(before, after, heat, window=4)
    left, middle, right = figure.axes[:3]
    assert not np.asarray(middle.images[0].get_array())[:, :6].any()
    shown = np.asarray(left.images[0].get_array())
    np.testing.assert_allclose(shown[:, 6:], np.asarray(middle.images[0].get_array())[:, 6:])
    drawn = right.images[0]
    # The first window covers pixels 0 to 3: its center is at 1.5, its cell one stride wide.
    assert list(drawn.get_extent()) == [1.0, 10.0, 6.0, 1.0]
    bound = float(heat.max())
    assert drawn.get_clim() == pytest.approx((-bound, bound))
    np.testing.assert_allclose(
        np.asarray(drawn.get_array()), heat[0].clamp(-bound, bound).numpy(), rtol=1e-6
    )
    assert (right.get_xlim(), right.get_ylim()) == ((-0.5, 11.5), (7.5, -0.5))


def test_windows_of_a_stride_are_drawn_a_stride_apart():
    figure = filtering_figure(images(), images(), torch.randn(2, 2, 3), window=(4, 4), stride=4)
    assert list(figure.axes[2].images[0].get_extent()) == [-0.5, 11.5, 7.5, -0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: map_overlays(images(), {}), "maps must not be empty"),
        (lambda: map_overlays(images(3), {"CAM": maps()}), r"images must have shape \(2, height"),
        (lambda: map_overlays(images(), {"CAM": maps(), "B": maps(3)}), "'B' has another"),
        (lambda: map_overlays(images(), {"CAM": maps()}, boxes={"B": [[0] * 4] * 2}), "'B'"),
        (
            lambda: map_overlays(images(), {"CAM": maps()}, boxes={"CAM": [[0] * 4]}),
            r"boxes 'CAM' must have shape \(2, 4\)",
        ),
        (lambda: map_overlays(images(), {"CAM": maps()}, truth=[[0] * 3] * 2), "boxes 'truth'"),
        (lambda: map_overlays(images(), {"CAM": maps()}, titles=["a"]), "titles must hold 2"),
        (lambda: map_overlays(images(), {"CAM": maps()[0]}), "non-empty 3-dimensional"),
        (
            lambda: filtering_figure(images(), images(2, 1, 8, 11), torch.zeros(2, 5, 9), 4),
            "before and after must have one shape",
        ),
        (lambda: filtering_figure(images(), images(), torch.zeros(3, 5, 9), 4), "as many rows"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_information_below_zero_everywhere_keeps_a_scale_around_zero():
    figure = filtering_figure(images(), images(), torch.full((2, 5, 9), -2.0), window=4)
    low, high = figure.axes[2].images[0].get_clim()
    assert low == -high < 0
