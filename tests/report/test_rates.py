import numpy as np
import pytest

from lastlayer.report import rates_figure
from lastlayer.training import RunDirectory

STEPS = [0, 10, 20]
RATES = [[0.5, 0.5, 0.5], [0.4, 0.5, 0.6], [0.3, 0.5, 0.7]]
COUNTS = [100, 10, 1]


def luminance(color):
    return float(np.dot(color[:3], (0.2126, 0.7152, 0.0722)))


def test_there_is_one_line_a_class_and_the_more_examples_the_darker():
    figure = rates_figure(STEPS, RATES, COUNTS, ["a", "b", "c"], title="rates")
    axes, bar = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"a", "b", "c"}
    for index, name in enumerate("abc"):
        np.testing.assert_array_equal(lines[name].get_xdata(), STEPS)
        np.testing.assert_array_equal(lines[name].get_ydata(), np.array(RATES)[:, index])
    light = [luminance(lines[name].get_color()) for name in "abc"]
    assert light == sorted(light)
    assert bar.get_ylabel() == "training examples of the class"


def test_many_classes_of_equal_counts_and_a_single_step_can_be_drawn(tmp_path):
    figure = rates_figure([5], np.full((1, 40), 0.5), [7] * 40)
    assert len(figure.axes[0].lines) == 40
    figure.savefig(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rates": [[0.5, 0.5]]}, "rates"),
        ({"rates": np.full((3, 3), 1.5)}, "rates"),
        ({"class_counts": [1, 0, 3]}, "class_counts"),
        ({"class_names": ["a"]}, "class_names"),
        ({"steps": []}, "steps"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    given = {"steps": STEPS, "rates": RATES, "class_counts": COUNTS} | change
    with pytest.raises(ValueError, match=named):
        rates_figure(**given)


def test_rates_are_read_from_finished_runs_that_have_them(tmp_path):
    from lastlayer.report.run_files import sampling_rates
    from lastlayer.training import RunConfig

    run = RunDirectory.create(tmp_path / "run", RunConfig())
    for step, rates in zip(STEPS, RATES, strict=True):
        run.append_metrics({"split": "rates", "step": step, "rates": rates})
    assert sampling_rates(run.path) is None
    entries = ("seed", "measured_on", "metrics", "seconds", "input_shape")
    summary = dict.fromkeys(entries) | {"class_names": ["a", "b", "c"]}
    run.write_summary(summary)
    assert sampling_rates(run.path) is None
    run.write_summary(summary | {"class_counts": COUNTS})
    found = sampling_rates(run.path)
    np.testing.assert_array_equal(found.rates, RATES)
    assert found.steps.tolist() == STEPS
    assert (found.class_counts, found.class_names) == (COUNTS, ["a", "b", "c"])


def test_the_rates_of_a_single_step_are_dots_and_those_of_several_lines():
    # A line through one point would not be seen.
    single = rates_figure([5], [[0.2, 0.3, 0.5]], COUNTS).axes[0].lines
    assert {line.get_marker() for line in single} == {"o"}
    several = rates_figure(STEPS, RATES, COUNTS).axes[0].lines
    assert {line.get_marker() for line in several} == {"None"}
