"""Every option of the commands that train reaches its own entry of the configuration."""

from dataclasses import fields
from pathlib import Path

import pytest

from lastlayer.cli.settings import DataSettings, Settings, TaskSettings
from lastlayer.incremental import IncrementalConfig
from lastlayer.training import RunConfig

#: What each option is given, and the entry that it is to be, written out once more.
GIVEN = {
    "data": ("mnist", "data.name"),
    "data_dir": (Path("folder"), "data.data_dir"),
    "train_size": (101, "data.train_size"),
    "validation_size": ("102", "data.validation_size"),
    "long_tail": (103.0, "data.long_tail.imbalance"),
    "model": ("lenet", "model.name"),
    "steps": (104, "training.steps"),
    "batch_size": (105, "training.batch_size"),
    "lr": (0.106, "optimizer.lr"),
    "weight_decay": (0.107, "optimizer.weight_decay"),
    "device": ("cpu", "training.device"),
    "precision": ("64-true", "training.precision"),
    "base": (108, "tasks.base"),
    "later_tasks": (109, "tasks.later"),
    "order": ("label", "tasks.order"),
    "first_steps": (110, "tasks.first_steps"),
    "memory": (111, "memory.per_class"),
    "memory_total": (112, "memory.total"),
}
WITHOUT_ENTRY = {"recipe", "set", "training_steps"}


def flat(tree, prefix=""):
    found = {}
    for key, value in tree.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {}
        found |= inner or {prefix + key: value}
    return found


def test_every_option_is_tested_here():
    assert {field.name for field in fields(TaskSettings)} == set(GIVEN) | WITHOUT_ENTRY


@pytest.mark.parametrize("name", GIVEN)
def test_an_option_changes_its_entry_and_nothing_else(name):
    value, entry = GIVEN[name]
    changes = flat(TaskSettings(**{name: value}).changes())
    wanted = int(value) if name == "validation_size" else value
    assert changes.pop(entry) == (str(wanted) if name == "data_dir" else wanted)
    assert changes == ({"data.train_size": None} if name == "long_tail" else {})


@pytest.mark.parametrize("name", GIVEN)
def test_the_commands_words_reach_the_configuration(name, lastlayer, monkeypatch):
    tried = []

    def plan(recipe, variants, seeds, out, changes):
        tried.append(changes)
        raise ValueError("far enough")

    monkeypatch.setattr("lastlayer.experiments.plan", plan)
    value, entry = GIVEN[name]
    printed = lastlayer("learn", f"--{name.replace('_', '-')}", value)
    assert "far enough" in printed.err
    (changes,) = tried
    config = IncrementalConfig().updated({"data": {"validation_size": 0}} | changes)
    wanted = flat(config.model_dump())[entry]
    assert str(wanted) == str(value)
    assert str(wanted) != str(flat(IncrementalConfig().model_dump()).get(entry))


def test_settings_of_all_commands_are_one_class():
    assert issubclass(TaskSettings, Settings)
    assert issubclass(Settings, DataSettings)
    shared = {name for name, (_, entry) in GIVEN.items() if not entry.startswith(("tas", "mem"))}
    assert {field.name for field in fields(Settings)} == shared | {"recipe", "set"}
    given = {name: GIVEN[name][0] for name in shared}
    assert RunConfig().updated(Settings(**given).changes()).training.steps == 104


def test_the_old_word_for_training_steps_is_refused_with_the_new_ones(lastlayer):
    printed = lastlayer("learn", "--steps", 3, "--training-steps", 20)
    assert printed.status == 2
    (line,) = printed.err.splitlines()
    assert "--training-steps is now --steps" in line
    assert "is --later-tasks" in line


def test_few_steps_of_a_task_are_told_apart_from_tasks(lastlayer, monkeypatch):
    def plan(*arguments):
        raise ValueError("far enough")

    monkeypatch.setattr("lastlayer.experiments.plan", plan)
    few = lastlayer("learn", "--base", 50, "--steps", 5).err.splitlines()
    assert few[0].startswith("note: --steps 5 are training steps of every task")
    assert "--later-tasks" in few[0]
    for words in (["--steps", 5, "--later-tasks", 2], ["--steps", 300], []):
        assert "note" not in lastlayer("learn", *words).err


@pytest.mark.parametrize("command", ["compare", "learn", "tune", "reproduce"])
@pytest.mark.parametrize("word", ["--variants", "--heads", "--methods"])
def test_variants_are_given_by_one_word_or_the_two_old_ones(command, word, lastlayer):
    words = {"tune": ["--grid", "optimizer.lr=1"], "reproduce": ["digits"]}.get(command, [])
    printed = lastlayer(command, *words, word, "softmx")
    assert printed.status == 2
    assert "unknown head 'softmx'. Did you mean 'softmax'?" in printed.err
