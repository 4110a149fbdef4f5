import json

import pytest

from lastlayer.experiments import Recipe, catalog, parse_variant, plan
from lastlayer.heads import HEADS
from lastlayer.longtail import SAMPLERS
from lastlayer.training import RunDirectory
from lastlayer.training.schemes import SCHEMES

STAGE = """
[config.classifier_stage]
steps = 30
batch_size = 32
meta = { batch_size = 20, lr = 0.05 }
"""


@pytest.fixture(scope="module")
def staged_recipe(tmp_path_factory, tiny_recipe):
    path = tmp_path_factory.mktemp("recipe") / "staged.toml"
    path.write_text(tiny_recipe.read_text().replace("[published]", STAGE + "\n[published]"))
    return path


def test_a_scheme_is_a_head_a_sampler_and_the_head_of_the_first_stage(staged_recipe):
    recipe = Recipe.load(str(staged_recipe))
    config = recipe.run_config("balms", {"seed": 3})
    assert (config.head.name, config.first_stage().head.name) == ("balanced-softmax", "softmax")
    assert config.classifier_stage.sampler == "meta"
    assert config.classifier_stage.steps == 30
    assert config.total_steps == 70
    plain = recipe.run_config("softmax", {"seed": 3})
    assert plain.classifier_stage.sampler is None
    # The first stage of a scheme is the run of its head alone, to the last entry.
    assert (
        config.first_stage().model_dump()
        == plain.updated(
            {"classifier_stage": config.first_stage().classifier_stage.model_dump()}
        ).model_dump()
    )


def test_options_of_a_scheme_are_entries_of_the_second_stage_or_of_the_head():
    name, changes = parse_variant("balms:meta.initial_power=1,steps=5,head.tau=0.25")
    assert name == "balms"
    assert changes["head"] == {"name": "balanced-softmax", "options": {"tau": 0.25}}
    assert changes["classifier_stage"] == {
        "sampler": "meta",
        "train": "head",
        "representation_head": {"name": "softmax", "options": {}},
        "meta": {"initial_power": 1},
        "steps": 5,
    }
    name, changes = parse_variant("crt:sampler=instance+dropout:p=0.2,where=fc")
    assert name == "crt+dropout"
    assert changes["classifier_stage"]["sampler"] == "instance"
    assert changes["regularizer"]["name"] == "dropout"


def test_a_sampler_alone_is_a_scheme_of_one_stage(staged_recipe):
    for sampler in SAMPLERS:
        config = Recipe.load(str(staged_recipe)).run_config(f"{sampler}-sampling", {})
        assert (config.head.name, config.training.sampler) == ("softmax", sampler)
        assert config.first_stage() == config
    _, changes = parse_variant("class-balanced-sampling:batch_size=7,head.label_smoothing=0.1")
    assert changes["training"] == {"sampler": "class-balanced", "batch_size": 7}
    assert changes["head"]["options"] == {"label_smoothing": 0.1}


def test_a_wrong_option_of_a_scheme_is_named_before_training(staged_recipe):
    recipe = Recipe.load(str(staged_recipe))
    with pytest.raises(ValueError, match=r"classifier_stage\.stepz"):
        recipe.run_config("crt:stepz=5", {})


def test_a_scheme_whose_head_is_not_there_says_so_before_training(
    staged_recipe, tmp_path, monkeypatch
):
    parts = {k: v for k, v in HEADS._parts.items() if k != "balanced-softmax"}
    monkeypatch.setattr(HEADS, "_parts", parts)
    with pytest.raises(ValueError, match="unknown head 'balanced-softmax'"):
        plan(Recipe.load(str(staged_recipe)), ["softmax", "balms"], [0], tmp_path)


def test_schemes_are_listed(lastlayer):
    assert catalog()["schemes"] == {name: s.description for name, s in SCHEMES.items()}
    printed = lastlayer("list", "schemes")
    assert all(name in printed.out for name in SCHEMES)


def test_compare_takes_schemes_by_name_and_reports_their_rates(staged_recipe, tmp_path, lastlayer):
    words = ["compare", "--recipe", staged_recipe, "--out", tmp_path / "out"]
    words += ["--heads", "softmax,crt,balms", "--seeds", 1, "--jobs", 1]
    printed = lastlayer(*words)
    assert printed.status == 0, printed.err
    assert "3/3 runs, 180/180 steps" in printed.err
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert [row["head"] for row in rows] == ["softmax", "crt", "balms"]
    crt = RunDirectory(tmp_path / "out" / "crt-seed0")
    softmax = RunDirectory(tmp_path / "out" / "softmax-seed0")
    ours, theirs = crt.state_dict(), softmax.state_dict()
    assert all(ours[name].equal(theirs[name]) for name in ours if name.startswith("backbone."))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Sampling rates of balms-seed0" in page
    assert "Sampling rates of crt" not in page
