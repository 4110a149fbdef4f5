"""A part's options go with its name: another name drops them."""

import pytest

from lastlayer.cli.settings import Settings
from lastlayer.experiments import Recipe
from lastlayer.training import RunConfig, RunDirectory
from lastlayer.training.config import merge

PARTS = {
    "data": ("digits", {"test_per_class": 34}, "mnist"),
    "model": ("digits-cnn", {"dropout": 0.5}, "gap-cnn"),
    "head": ("dropmax", {"temperature": 0.2}, "softmax"),
    "regularizer": ("disout", {"block_size": 1}, "dropout"),
}
PLACES = {"places": [{"where": "layers.conv"}]}


def recipe(config, **more):
    return Recipe(title="t", variants=("softmax",), config=config, **more)


def table(part, name, options):
    places = PLACES if part == "regularizer" else {}
    return {part: {"name": name, "options": options} | places}


@pytest.mark.parametrize("part", PARTS)
def test_another_name_drops_the_options_and_the_same_name_keeps_them(part):
    name, options, other = PARTS[part]
    config = RunConfig().updated(table(part, name, options))
    kept = getattr(config.updated({part: {"name": name}}), part)
    assert (kept.name, kept.options) == (name, options)
    changed = getattr(config.updated({part: {"name": other}}), part)
    assert (changed.name, changed.options) == (other, {})
    given = getattr(config.updated({part: {"name": other, "options": {"a": 1}}}), part)
    assert (given.name, given.options) == (other, {"a": 1})
    more = getattr(config.updated({part: {"options": {"a": 1}}}), part)
    assert (more.name, more.options) == (name, options | {"a": 1})


@pytest.mark.parametrize("part", PARTS)
def test_a_recipes_options_are_for_its_own_part(part):
    name, options, other = PARTS[part]
    mine = recipe(table(part, name, options))
    variants = {"head": (name, other), "regularizer": (f"softmax+{name}", f"softmax+{other}")}
    same, changed = variants.get(part, ("softmax", "softmax"))
    given = part in ("data", "model")
    kept = mine.run_config(same, {part: {"name": name}} if given else {})
    assert getattr(kept, part).options == options
    found = mine.run_config(changed, {part: {"name": other}} if given else {})
    assert (getattr(found, part).name, getattr(found, part).options) == (other, {})
    if part == "regularizer":  # where it stands is not the regularizer's own
        assert found.regularizer.places[0].where == "layers.conv"


def test_options_without_a_name_are_the_default_parts():
    mine = recipe({"data": {"options": {"test_per_class": 34}}, "model": {"options": {"a": 1}}})
    kept = mine.run_config("softmax", {})
    assert (kept.data.options, kept.model.options) == ({"test_per_class": 34}, {"a": 1})
    other = mine.run_config("softmax", {"data": {"name": "mnist"}, "model": {"name": "lenet"}})
    assert (other.data.options, other.model.options) == ({}, {})


def test_a_variants_options_in_a_recipe_stay_with_the_variant():
    own = {"softmax+disout": {"regularizer": {"options": {"alpha": 2.0}}}}
    own["dropmax"] = {"head": {"options": {"temperature": 0.3}}}
    mine = recipe({"regularizer": PLACES}, variant_config=own)
    assert mine.run_config("softmax+disout:p=0.3", {}).regularizer.options == {
        "p": 0.3,
        "alpha": 2.0,
    }
    assert mine.run_config("dropmax", {}).head.options == {"temperature": 0.3}
    assert mine.run_config("softmax", {}).head.options == {}


def test_what_was_merged_stays_as_it_was():
    base = {"model": {"name": "mlp", "options": {"hidden": [8]}}}
    changes = {"model": {"name": "lenet"}}
    assert merge(base, changes) == {"model": {"name": "lenet"}}
    assert base["model"]["options"] == {"hidden": [8]}
    assert changes == {"model": {"name": "lenet"}}


def test_a_grid_of_backbones_takes_each_without_the_others_options(tmp_path, lastlayer):
    printed = lastlayer(
        *("tune", "--grid", "model.name=digits-cnn,mlp", "--heads", "softmax", "--jobs", 1),
        *("--steps", 2, "--train-size", 40, "--out", tmp_path / "tuned"),
    )
    assert printed.status == 0, printed.err
    options = {
        name: RunDirectory(tmp_path / "tuned" / f"model.name={name}" / "softmax-seed100")
        .config()
        .model.options
        for name in ("digits-cnn", "mlp")
    }
    assert options["mlp"] == {}
    assert options["digits-cnn"] == Recipe.load("digits").config["model"]["options"]


def test_another_backbone_on_the_default_data_trains(tmp_path, lastlayer):
    words = ["train", "--model", "gap-cnn", "--head", "softmax", "--out", tmp_path / "run"]
    printed = lastlayer(*words, "--steps", 2, "--train-size", 40)
    assert printed.status == 0, printed.err
    config = RunDirectory(tmp_path / "run").config()
    assert (config.model.name, config.model.options) == ("gap-cnn", {})
    assert "dropout" in Recipe.load("digits").config["model"]["options"]


def test_options_given_beside_a_name_are_kept():
    given = Settings(model="mlp", set=("model.options={hidden = [4]}",)).changes()
    assert Recipe.load("digits").run_config("softmax", given).model.options == {"hidden": [4]}
