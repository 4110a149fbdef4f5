import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from lastlayer.report import retain_confusion, retain_panels, save_figure
from lastlayer.report.style import TRUTH, WRONG

K = 4
RNG = np.random.default_rng(0)
EASY, HARD = RNG.uniform(0.1, 0.9, (4, K)), RNG.uniform(0.1, 0.9, (3, K))
POSTERIOR = RNG.uniform(0, 1, (3, K))
ARGUMENTS = {
    "retain_easy": EASY,
    "target_easy": [0, 1, 2, 3],
    "retain_hard": HARD,
    "target_hard": [2, 0, 1],
}


def drawn(axes):
    return np.asarray(axes.images[0].get_array())


def test_confusion_averages_ratios_to_the_own_class_by_brute_force():
    rho, target = RNG.uniform(0.05, 1, (50, 3)), RNG.integers(3, size=50)
    expected = np.zeros((3, 3))
    for c in range(3):
        mine = [row / row[c] for row, label in zip(rho, target, strict=True) if label == c]
        expected[c] = np.mean(mine, axis=0)
    confusion = retain_confusion(torch.tensor(rho), torch.tensor(target))
    np.testing.assert_allclose(confusion, expected, rtol=1e-12)
    np.testing.assert_array_equal(np.diag(confusion), np.ones(3))
    assert np.abs(confusion - confusion.T).max() > 0.1


def test_the_brute_force_oracle_catches_a_ratio_of_averages():
    rho, target = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([0, 0])
    broken = rho.mean(axis=0) / rho[:, 0].mean()
    np.testing.assert_allclose(retain_confusion(rho, target)[0], [1, (1 / 9 + 9) / 2])
    assert abs(broken[1] - retain_confusion(rho, target)[0, 1]) > 3


def test_a_class_without_inputs_gets_a_row_of_nan():
    confusion = retain_confusion([[0.5, 0.5]], [1])
    assert np.isnan(confusion).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    ("retain_prob", "target", "message"),
    [
        ([[0.0, 0.5]], [0], "row 0 has 0"),
        ([[1.5, 0.5]], [0], r"probabilities in \[0, 1\]"),
        ([[np.nan, 0.5]], [0], r"probabilities in \[0, 1\]"),
        ([[0.5, 0.5]], [2], r"\[0, 1\]; got 2"),
        ([[0.5, 0.5]], [0, 1], r"target must have shape \(1,\)"),
        ([0.5, 0.5], [0], "2-dimensional"),
        (np.zeros((0, 2)), [], "non-empty"),
    ],
)
def test_bad_retain_probabilities_are_refused(retain_prob, target, message):
    with pytest.raises(ValueError, match=message):
        retain_confusion(retain_prob, target)


def test_panels_draw_the_arrays_in_grey_from_zero_to_one():
    confusion = np.full((K, K), 0.3)
    figure = retain_panels(**ARGUMENTS, posterior_hard=POSTERIOR, confusion=confusion)
    panels = figure.axes[:4]
    for axes, values in zip(panels, [EASY, HARD, POSTERIOR, confusion], strict=True):
        np.testing.assert_array_equal(drawn(axes), values)
        image = axes.images[0]
        assert (image.norm.vmin, image.norm.vmax) == (0, 1)
        assert image.cmap(0.0)[:3] == (0, 0, 0)
        assert image.cmap(1.0)[:3] == (1, 1, 1)
    assert [text.get_text() for text in panels[1].get_yticklabels()] == ["2", "0", "1"]


def test_markers_circle_the_label_and_cross_only_wrong_predictions():
    figure = retain_panels(**ARGUMENTS, base_prediction=[2, 3, 0])
    circles, crosses = figure.axes[1].collections
    np.testing.assert_array_equal(circles.get_offsets(), [[2, 0], [0, 1], [1, 2]])
    np.testing.assert_array_equal(crosses.get_offsets(), [[3, 1], [0, 2]])
    assert to_hex(circles.get_edgecolor()[0]).upper() == TRUTH
    assert to_hex(crosses.get_edgecolor()[0]).upper() == WRONG
    assert len(figure.axes[0].collections) == 0
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["label", "base model's wrong prediction"]


@pytest.mark.parametrize(
    "shape", [(3, 6, 5), (3, 1, 6, 5), (3, 6, 5, 1), (3, 3, 6, 5), (3, 6, 5, 3)]
)
def test_thumbnails_stand_in_their_rows_left_of_the_panel(shape):
    images = RNG.normal(size=shape)
    axes = retain_panels(**ARGUMENTS, images_hard=torch.tensor(images)).axes[1]
    thumbnails = axes.images[1:]
    assert len(thumbnails) == 3
    for row, thumbnail in enumerate(thumbnails):
        left, right, bottom, top = thumbnail.get_extent()
        assert left < right < -0.5
        assert top < row < bottom
        assert thumbnail.get_array().shape[:2] == (6, 5)
        assert thumbnail.get_array().min() == 0.0
        assert thumbnail.get_array().max() == 1.0


def test_a_colour_image_keeps_its_channels_in_order():
    image = np.zeros((3, 3, 2, 2))
    image[:, 0] = 1.0  # red
    axes = retain_panels(**ARGUMENTS, images_hard=image).axes[1]
    np.testing.assert_array_equal(axes.images[1].get_array()[0, 0], [1, 0, 0])


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_panels_save_with_any_number_of_classes(tmp_path, num_classes):
    rho = RNG.uniform(size=(2, num_classes))
    names = [f"a rather long class name {k}" for k in range(num_classes)]
    figure = retain_panels(
        retain_easy=rho, target_easy=[0, 1], retain_hard=rho, target_hard=[1, 0], class_names=names
    )
    with Image.open(save_figure(figure, tmp_path / "a.png", dpi=40)) as image:
        assert np.asarray(image.convert("L")).std() > 0
    label = figure.axes[0].get_yticklabels()[0].get_text()
    assert label == "a rather long c…"


def test_no_text_of_the_panels_is_cut_by_the_page_or_by_another_panel():
    names = ["automobile", "bird", "horse", "airplane"]
    figure = retain_panels(**ARGUMENTS, base_prediction=[0, 1, 2], class_names=names)
    renderer = figure.canvas.get_renderer()
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes.append(figure.legends[0].get_window_extent(renderer))
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retain_hard": HARD[:, :2]}, "retain_hard must have 4 classes"),
        ({"posterior_hard": POSTERIOR[:2]}, r"posterior_hard must have shape \(3, 4\)"),
        ({"base_prediction": [0, 1, 4]}, "base_prediction must hold class indices"),
        ({"confusion": np.eye(3)}, r"confusion must have shape \(4, 4\)"),
        ({"images_easy": np.zeros((3, 8, 8))}, r"images_easy must have shape \(4, height"),
        ({"images_hard": np.zeros((3, 2, 8, 8))}, "1 or 3 channels"),
        ({"class_names": ["a"]}, "class_names must hold 4"),
        ({"target_easy": [0, 1, 2, 0.5]}, "got 0.5"),
    ],
)
def test_bad_panel_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        retain_panels(**(ARGUMENTS | change))
