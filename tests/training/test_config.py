import datetime
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.training import RunConfig
from lastlayer.training.config import merge

VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
OPTIONS = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)

AUGMENTATIONS = st.text(max_size=8) | st.builds(
    lambda name, options: options | {"name": name}, st.text(max_size=8), OPTIONS
)


@st.composite
def configs(draw):
    some = st.none() | st.integers(1, 10**6)
    validate_every = draw(some)
    return RunConfig.model_validate(
        {
            "seed": draw(st.integers(0, 2**60)),
            "data": {
                "name": draw(st.text(max_size=8)),
                "data_dir": draw(st.none() | st.text(max_size=8)),
                "train_size": draw(some),
                "validation_size": draw(
                    st.none()
                    | st.integers(0, 9999)
                    | st.floats(0, 1, exclude_min=True, exclude_max=True)
                ),
                "seed": draw(st.none() | st.integers(0, 2**60)),
                "options": draw(OPTIONS),
            },
            "model": {"name": draw(st.text(max_size=8)), "options": draw(OPTIONS)},
            "head": {"name": draw(st.text(max_size=8)), "options": draw(OPTIONS)},
            "optimizer": {
                "name": draw(st.sampled_from(["adam", "adamw", "sgd"])),
                "lr": draw(st.floats(1e-300, 1e300)),
                "milestones": draw(st.lists(st.floats(0, 1), max_size=4)),
                "schedule": draw(st.sampled_from(["constant", "step", "cosine"])),
                "warmup": draw(st.integers(0, 1499) | st.floats(0.001, 0.999)),
            },
            "training": {
                "validate_every": validate_every,
                "patience": None if validate_every is None else draw(some),
                "augment": draw(st.lists(AUGMENTATIONS, max_size=3)),
                "clip_norm": draw(st.none() | st.floats(1e-9, 1e9)),
            },
        }
    )


@settings(max_examples=40)
@given(config=configs())
def test_toml_replays_every_configuration(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert RunConfig.from_toml(path) == config


def test_toml_is_complete_but_for_what_is_none_or_empty():
    stored = tomllib.loads(RunConfig().to_toml())
    complete = RunConfig().model_dump()
    for section, entries in complete.items():
        if isinstance(entries, dict):
            kept = {key for key, value in entries.items() if value is not None and value != {}}
            assert set(stored[section]) == kept
        else:
            assert stored[section] == entries


def test_options_are_what_toml_gives_back():
    config = RunConfig().updated({"model": {"options": {"hidden": (8, 4), "empty": {}}}})
    assert config.model.options == {"hidden": [8, 4], "empty": {}}


@pytest.mark.parametrize("value", [None, object(), {1, 2}])
def test_an_option_that_toml_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match=r"head\.options: .*TOML"):
        RunConfig().updated({"head": {"options": {"scale": value}}})


@pytest.mark.parametrize(
    ("changes", "entry"),
    [
        ({"training": {"stepz": 3}}, "training.stepz"),
        ({"colour": 1}, "colour"),
        ({"training": {"steps": "many"}}, "training.steps"),
        ({"training": {"steps": 0}}, "training.steps"),
        ({"training": {"steps": 1.5}}, "training.steps"),
        ({"optimizer": {"lr": -1.0}}, "optimizer.lr"),
        ({"optimizer": {"name": "lion"}}, "optimizer.name"),
        ({"training": {"precision": "8"}}, "training.precision"),
        ({"data": {"validation_size": 1.5}}, "data.validation_size"),
        ({"data": 3}, "data"),
        ({"seed": -1}, "seed"),
        ({"evaluate_on": "train"}, "evaluate_on"),
        ({"training": {"patience": 3}}, "training"),
        ({"training": {"select": "best"}}, "training"),
        ({"training": {"augment": "crop"}}, "training.augment"),
        ({"training": {"augment": [3]}}, "training.augment.0"),
        ({"training": {"augment": ["crop", {"padding": 2}]}}, "training.augment.1"),
        ({"training": {"augment": [{"name": "crop", "fill": None}]}}, "training.augment.0"),
        ({"optimizer": {"nesterov": True}}, "optimizer"),
        ({"optimizer": {"name": "sgd", "momentum": 0, "nesterov": True}}, "optimizer"),
        ({"optimizer": {"warmup": 10}}, "optimizer"),
        ({"optimizer": {"warmup": 1.0, "schedule": "step"}}, "optimizer.warmup"),
        ({"optimizer": {"warmup": -1, "schedule": "step"}}, "optimizer.warmup"),
        ({"optimizer": {"warmup": 1500, "schedule": "step"}}, "configuration"),
    ],
)
def test_a_wrong_entry_is_one_line_that_names_it(changes, entry):
    with pytest.raises(ValueError, match="invalid configuration") as caught:
        RunConfig().updated(changes)
    message = str(caught.value)
    assert f" {entry}" in message
    assert "\n" not in message
    assert "pydantic" not in message


def test_a_configuration_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 3


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe", b"seed = -4", b"sed = 4"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)) as caught:
        RunConfig.from_toml(path)
    assert "\n" not in str(caught.value)


def test_merge_lays_tables_over_and_replaces_the_rest():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 2}
    assert merge(base, {"a": {"y": [3]}, "c": {"z": 1}}) == {
        "a": {"x": 1, "y": [3]},
        "b": 2,
        "c": {"z": 1},
    }
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 2}


def test_a_date_is_an_option_like_another():
    date = datetime.date(2018, 12, 3)
    assert RunConfig().updated({"data": {"options": {"day": date}}}).data.options == {"day": date}


def test_augmentations_are_written_as_names_or_tables_of_options():
    text = '[training]\naugment = ["crop", "flip", {name = "rotate", degrees = 10}]\n'
    config = RunConfig.model_validate(tomllib.loads(text))
    assert config.training.augment == ("crop", "flip", {"name": "rotate", "degrees": 10})
    assert RunConfig.model_validate(tomllib.loads(config.to_toml())) == config
