"""What the surfaces of the stochastic softmax show when nothing more is said."""

import pytest

from lastlayer.report import contour_surfaces, save_figure

PAIRS = [(0.3, 0.8)]


def drawn(path, **options):
    save_figure(contour_surfaces(PAIRS, points=5, seed=1, **options), path)
    return path.read_bytes()


def test_surfaces_are_of_one_draw_unless_their_mean_is_asked_for(tmp_path):
    plain = drawn(tmp_path / "plain.svg")
    assert plain == drawn(tmp_path / "draw.svg", mean=False)
    assert plain != drawn(tmp_path / "mean.svg", mean=True)


def test_surfaces_reach_from_minus_three_to_three_in_both_logits():
    (axes,) = contour_surfaces(PAIRS, points=5).axes
    assert list(axes.xy_dataLim.intervalx) == pytest.approx([-3, 3])
    assert list(axes.xy_dataLim.intervaly) == pytest.approx([-3, 3])
