"""What version 0.1 called otherwise is still read: recipes, run directories, Python names."""

import hashlib
from pathlib import Path

import pytest

import lastlayer.experiments
import lastlayer.incremental
from lastlayer.cli.runs import settings_digest
from lastlayer.cli.settings import TaskSettings
from lastlayer.experiments import Recipe, plan, run
from lastlayer.incremental import IncrementalConfig, IncrementalRun, learn

OLD_RECIPE = """
kind = "incremental"
title = "As version 0.1 had it"
heads = ["softmax", "softmax+distillation"]

[config.data]
train_size = 60
validation_size = 0

[config.model]
name = "mlp"
options = { hidden = [8] }

[config.training]
steps = 3
batch_size = 10

[config.tasks]
base = 6
steps = 2

[head_config."softmax+distillation".tasks]
steps = 1
"""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.toml"
    path.write_text(OLD_RECIPE)
    return Recipe.load(str(path))


def test_a_recipe_of_version_0_1_is_read(old):
    assert old.variants == ("softmax", "softmax+distillation")
    assert old.run_config("softmax", {}).tasks.later == 2
    assert old.run_config("softmax+distillation:weight=2", {}).tasks.later == 1
    # What is given to a command comes last, by either name.
    assert old.run_config("softmax", {"tasks": {"later": 4}}).tasks.later == 4
    assert old.run_config("softmax", {"tasks": {"steps": 1}}).tasks.later == 1
    with pytest.warns(DeprecationWarning, match="Recipe.heads is now Recipe.variants"):
        assert old.heads == old.variants
    with pytest.warns(DeprecationWarning, match="Recipe.head_config is now Recipe.variant_config"):
        assert old.head_config == old.variant_config


@pytest.mark.parametrize(
    ("old_form", "new_form", "entry"),
    [
        ("heads = [", 'variants = ["softmax"]\nheads = [', "heads"),
        ("base = 6\nsteps = 2", "base = 6\nlater = 2\nsteps = 2", r"tasks\.steps"),
    ],
)
def test_an_entry_by_both_its_names_is_refused(tmp_path, old_form, new_form, entry):
    path = tmp_path / "both.toml"
    path.write_text(OLD_RECIPE.replace(old_form, new_form))
    with pytest.raises(ValueError, match=rf"{entry}: Extra inputs"):
        Recipe.load(str(path)).run_config("softmax", {})


def test_a_run_directory_of_version_0_1_is_read_and_resumed(old, tmp_path):
    (job,) = plan(old, ["softmax"], [0], tmp_path)

    def stop(step, values):
        if step >= 4:
            raise KeyboardInterrupt

    config = job.config.updated({"training": {"log_every": 1}})
    with pytest.raises(KeyboardInterrupt):
        learn(config, job.path, progress=stop)
    for path in job.path.rglob("config.toml"):  # the learner's has it too
        text = path.read_text()
        assert "later = 2" in text
        path.write_text(text.replace("later = 2", "steps = 2"))
    stopped = IncrementalRun.open(job.path)
    assert stopped.config() == config
    assert not stopped.finished
    whole = learn(config, tmp_path / "whole")
    again = learn(config, job.path, resume=True)
    assert again.summary()["incremental"] == whole.summary()["incremental"]
    assert len(again.results()) == 3


def test_a_run_of_another_number_of_tasks_is_refused_by_todays_name(old, tmp_path):
    assert run(plan(old, ["softmax"], [0], tmp_path), parallel=1) == []
    path = tmp_path / "softmax-seed0" / "config.toml"
    path.write_text(path.read_text().replace("later = 2", "steps = 2"))
    other = plan(old, ["softmax"], [0], tmp_path, {"tasks": {"later": 4}})
    with pytest.raises(ValueError, match=r"tasks\.later is 2 there, 4 here"):
        run(other, parallel=1)


def test_folders_named_by_settings_are_those_of_version_0_1():
    recipe = Recipe(
        kind="incremental", title="t", variants=("softmax",), config={"tasks": {"later": 4}}
    )
    text = '[{"tasks": {"base": 2, "steps": 3}}, {}]'
    digest = settings_digest(recipe, TaskSettings(base=2, later_tasks=3).changes())
    assert digest == f"digits-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    assert settings_digest(recipe, {"tasks": {"base": 2, "steps": 3}}) == digest
    assert settings_digest(recipe, {"tasks": {"base": 2}}) != digest


def test_the_new_name_is_written(tmp_path):
    config = IncrementalConfig().updated({"tasks": {"steps": 7}})
    assert config.tasks.later == 7
    assert "later = 7" in config.to_toml()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *((lastlayer.experiments, name) for name in ("SCHEMES", "nest", "parse_head")),
        (lastlayer.experiments, "tune_heads"),
        *((lastlayer.incremental, name) for name in ("ADDITIONS", "METHODS", "parse_method")),
    ],
)
def test_python_names_of_version_0_1_work_with_a_warning(module, name):
    with pytest.warns(DeprecationWarning, match=rf"{module.__name__}\.{name} is now"):
        assert getattr(module, name) is not None


def test_recipes_of_the_package_use_todays_names():
    folder = Path(lastlayer.experiments.__file__).parent / "recipes"
    texts = [path.read_text() for path in folder.iterdir()]
    assert len(texts) > 20
    assert not [text for text in texts if "heads = [" in text or "head_config" in text]
