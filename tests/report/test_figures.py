import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from lastlayer import report
from lastlayer.evaluation import reliability
from lastlayer.report import (
    Curve,
    confusion_figure,
    contour_surfaces,
    learning_curves,
    reliability_figure,
    save_figure,
)
from lastlayer.report.surfaces import surface


def table(scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(300, 4, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return reliability((scale * logits).log_softmax(1), target)


def small_figure():
    return confusion_figure([[3, 1], [0, 4]])


def test_png_opens_with_the_size_asked_for(tmp_path):
    figure = small_figure()
    path = save_figure(figure, tmp_path / "new folder" / "a.png", dpi=100)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == tuple(int(100 * inches) for inches in figure.get_size_inches())
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_svg_is_well_formed_and_pdf_has_its_header(tmp_path):
    svg = save_figure(small_figure(), tmp_path / "a.svg")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert save_figure(small_figure(), str(tmp_path / "a.PDF")).read_bytes()[:5] == b"%PDF-"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, suffix):
    first = save_figure(small_figure(), tmp_path / f"a.{suffix}").read_bytes()
    assert save_figure(small_figure(), tmp_path / f"b.{suffix}").read_bytes() == first


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        save_figure(small_figure(), tmp_path / "a.bmp")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = save_figure(small_figure(), tmp_path / "a.svg")
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_figure(confusion_figure([[1, 0], [0, 1]]), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.svg"]


def test_figures_leave_the_callers_matplotlib_settings_alone():
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0}):
        small_figure()
        assert matplotlib.rcParams["font.size"] == 31.0


def test_confusion_figure_draws_and_writes_the_matrix():
    matrix = np.array([[0.5, np.nan], [1.25, 0.0]])
    axes = confusion_figure(matrix, ["cat", "dog"], title="T").axes[0]
    np.testing.assert_array_equal(np.asarray(axes.images[0].get_array().filled(np.nan)), matrix)
    assert [text.get_text() for text in axes.texts] == [".50", "1.25", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_title(), axes.get_ylabel()) == ("T", "label")


def test_many_classes_get_a_scale_instead_of_numbers_and_fewer_labels():
    figure = confusion_figure(np.eye(100))
    assert len(figure.axes) == 2
    assert len(figure.axes[0].texts) == 0
    assert len(figure.axes[0].get_xticks()) == 10


@pytest.mark.parametrize("matrix", [np.zeros((2, 3)), -np.eye(2), np.zeros((0, 0)), np.zeros(4)])
def test_a_bad_matrix_is_refused(matrix):
    with pytest.raises(ValueError, match="matrix must be"):
        confusion_figure(matrix)


def test_class_names_must_fit():
    with pytest.raises(ValueError, match="class_names must hold 2 names"):
        confusion_figure(np.eye(2), ["a"])


def test_reliability_figure_draws_the_filled_bins_of_each_table():
    tables = {"calm": table(), "loud": table(3.0)}
    figure = reliability_figure(tables, title="top-1")
    upper, lower = figure.axes
    for line, counts, each in zip(upper.lines[1:], lower.lines, tables.values(), strict=True):
        filled = each.count.numpy() > 0
        assert 0 < filled.sum() < 10
        np.testing.assert_array_equal(line.get_xdata(), each.confidence.numpy()[filled])
        np.testing.assert_array_equal(line.get_ydata(), each.accuracy.numpy()[filled])
        np.testing.assert_array_equal(counts.get_ydata(), each.count.numpy()[filled])
    labels = upper.get_legend_handles_labels()[1]
    assert labels[0] == f"calm (ECE {100 * tables['calm'].ece:.1f} %)"
    with pytest.raises(ValueError, match="tables"):
        reliability_figure({})


def test_learning_curves_share_a_colour_per_head_and_a_style_per_split():
    curves = [
        Curve("softmax", "train", [0, 1, 2], [2.0, 1.0, 0.5]),
        Curve("softmax", "test", [0, 2], [2.0, 0.8]),
        Curve("dropmax", "train", torch.tensor([0, 1]), torch.tensor([2.0, 1.5])),
        Curve("dropmax", "train", [0, 1], [2.0, math.nan]),
    ]
    lines = learning_curves(curves, log_y=True).axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), [2.0, 1.0, 0.5])
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert lines[0].get_linestyle() == lines[2].get_linestyle() != lines[1].get_linestyle()
    assert [line.get_label() for line in lines] == [
        "softmax train",
        "softmax test",
        "dropmax train",
        "_nolegend_",
    ]


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ([], "curves must not be empty"),
        ([Curve("a", "b", [0, 1], [1.0])], "'a b' must have one length; got 2 and 1"),
        ([Curve("a", "", [0, 1], [1.0, -0.5])], "'a' holds -0.5"),
        ([Curve("a", "b", [], [])], "non-empty"),
    ],
)
def test_bad_curves_are_refused(curves, message):
    with pytest.raises(ValueError, match=message):
        learning_curves(curves, log_y=True)


def test_softmax_surface_has_its_known_corners():
    plain = surface(1.0, 1.0, points=13)
    assert plain[0, 0] == pytest.approx(1 / (1 + 2 * math.exp(-3)))  # 0.909
    assert plain[-1, -1] == pytest.approx(1 / (1 + 2 * math.exp(3)))  # 0.024
    np.testing.assert_array_equal(surface(0.0, 0.0, points=3), np.ones((3, 3)))


def test_mean_surface_is_the_average_of_drawn_surfaces():
    draws = 4_000
    drawn = np.mean([surface(0.3, 0.8, points=3, seed=s) for s in range(draws)], axis=0)
    expected = surface(0.3, 0.8, points=3, mean=True)
    # Values lie in [0, 1], so the sd of a mean is at most 0.5 / sqrt(n): 5 of them over 9 points.
    assert np.abs(drawn - expected).max() < 5 * 0.5 / math.sqrt(draws)


def test_rows_of_a_surface_are_the_first_logit():
    only_first = surface(1.0, 0.0, points=5)
    sigmoid = 1 / (1 + np.exp(np.linspace(-3, 3, 5)))
    np.testing.assert_allclose(only_first, np.repeat(sigmoid[:, None], 5, axis=1), rtol=1e-12)


def test_contour_surfaces_draws_one_titled_panel_per_pair(tmp_path):
    figure = contour_surfaces([(1, 1), (0.5, 0.5)], points=5)
    assert [axes.get_title() for axes in figure.axes] == ["softmax", "$p_1$ = 0.5, $p_2$ = 0.5"]
    assert all(axes.get_zlim() == (0.0, 1.0) for axes in figure.axes)
    save_figure(figure, tmp_path / "a.png", dpi=40)


@pytest.mark.parametrize("pairs", [[], [(1.5, 0.5)], [(float("nan"), 0.5)]])
def test_bad_retain_pairs_are_refused(pairs):
    with pytest.raises(ValueError, match="retain"):
        contour_surfaces(pairs)


def test_package_lists_its_public_names_and_loads_no_plotting_library():
    import subprocess
    import sys

    assert all(hasattr(report, name) for name in report.__all__)
    heavy = "{'matplotlib', 'rich', 'jinja2', 'scipy', 'torchmetrics', 'sklearn'}"
    code = (
        "import sys, torch; before = set(sys.modules);"
        "import lastlayer.report, lastlayer.evaluation;"
        f"print(sorted((set(sys.modules) - before) & {heavy}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
