"""Variants: the syntax, and the words that stand in it."""

import re

import pytest

from lastlayer.experiments import Recipe, catalog, parse_variant, plan, run
from lastlayer.experiments.kinds import KINDS
from lastlayer.heads import HEADS
from lastlayer.incremental.methods import variant_words
from lastlayer.regularizers import REGULARIZERS
from lastlayer.training.variants import (
    nest,
    parse_grid,
    parse_option,
    parse_word,
)


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("softmax", "softmax", {}),
        ("  dropmax ", "dropmax", {}),
        ("dropmax:", "dropmax", {}),
        ("class-dropout:retain_prob=0.4", "class-dropout", {"retain_prob": 0.4}),
        ("a:x=1,y=true,z=text", "a", {"x": 1, "y": True, "z": "text"}),
        ('a:x="1"', "a", {"x": "1"}),
    ],
)
def test_a_head_is_a_name_and_toml_options(text, name, options):
    assert parse_word(text) == (name, options)


@pytest.mark.parametrize("text", ["", ":x=1", "  "])
def test_a_head_needs_a_name(text):
    with pytest.raises(ValueError, match="needs a name"):
        parse_word(text)


@pytest.mark.parametrize("text", ["dropmax:temperature", "dropmax:=3"])
def test_an_option_needs_a_key_and_a_value(text):
    with pytest.raises(ValueError, match=r"key=value; got '(temperature|=3)'"):
        parse_word(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=1", 1),
        ("k=1e-3", 0.001),
        ("k=[1, 2]", [1, 2]),
        ("k=false", False),
        ("k=best", "best"),
        ("k=a=b", "a=b"),
        ("k=", ""),
    ],
)
def test_a_value_is_toml_or_else_text(text, value):
    key, parsed = parse_option(text)
    assert (key, parsed, type(parsed)) == ("k", value, type(value))


def test_a_grid_keeps_entries_and_values_in_order():
    grid = parse_grid(["optimizer.lr=1e-2,1e-3", "training.select=last,best"])
    assert grid == {"optimizer.lr": [0.01, 0.001], "training.select": ["last", "best"]}
    assert list(grid) == ["optimizer.lr", "training.select"]


@pytest.mark.parametrize("entry", ["optimizer.lr", "optimizer.lr=", "=1"])
def test_a_grid_entry_needs_values(entry):
    with pytest.raises(ValueError, match="written"):
        parse_grid([entry])


@pytest.mark.parametrize("entries", [["a=1,1"], ["a=1", "a=2"], ["a=0.1,1e-1"]])
def test_a_grid_holds_everything_once(entries):
    with pytest.raises(ValueError, match="once"):
        parse_grid(entries)


def test_a_dotted_entry_is_nested_tables():
    assert nest("a", 1) == {"a": 1}
    assert nest("a.b.c", [2]) == {"a": {"b": {"c": [2]}}}


# -- the words ------------------------------------------------------------------------------------


def test_all_words_are_in_one_table_and_listed_from_it():
    words = variant_words()
    assert list(words) == ["methods", "schemes", "heads", "additions", "regularizers"]
    assert list(words["heads"]) == HEADS.names()
    assert list(words["regularizers"]) == REGULARIZERS.names()
    first = [*words["methods"], *words["schemes"], *words["heads"]]
    later = [*words["additions"], *words["regularizers"]]
    assert len(set(first)) == len(first)
    assert len(set(later)) == len(later)
    listed = catalog()
    for kind in ("heads", "schemes", "regularizers"):
        assert listed[kind] == {n: word.description for n, word in words[kind].items()}
    additions = {f"...+{name}": word.description for name, word in words["additions"].items()}
    methods = {name: word.description for name, word in words["methods"].items()}
    assert listed["methods"] == methods | additions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("softmx", "unknown head 'softmx'. Did you mean 'softmax'?"),
        ("ballanced", "unknown head 'ballanced'. Did you mean 'balanced'?"),
        ("balm", "unknown head 'balm'. Did you mean 'balms'?"),
        ("softmax+dropot", "unknown addition 'dropot'. Did you mean 'dropout'?"),
        ("softmax+distilation", "unknown addition 'distilation'. Did you mean 'distillation'?"),
        ("dropout", "unknown head 'dropout'."),
        ("softmax+dropmax", "unknown addition 'dropmax'."),
        ("softmax+dropout+disout", "one regularizer at most: dropout and disout exclude"),
        ("softmax+alignment+bias-correction", "one correction at most: alignment and bias-cor"),
    ],
)
def test_an_unknown_word_names_its_neighbor(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_variant(text)


@pytest.mark.parametrize(
    ("kind", "variant", "message"),
    [
        ("incremental", "softmax+distillation:wieght=2", "Did you mean 'weight'?"),
        ("incremental", "softmax+memory:per_clas=2", "Did you mean 'per_class'?"),
        ("heads", "balms:meta.inital_power=1", "Did you mean 'initial_power'?"),
        ("heads", "crt:stepz=3", "Did you mean 'steps'?"),
        ("heads", "dropmax:temprature=1", "Did you mean 'temperature'?"),
        ("heads", "dropmax-iclr:temprature=1", "Did you mean 'temperature'?"),
        ("heads", "softmax:lable_smoothing=1", "Did you mean 'label_smoothing'?"),
        ("incremental", "balanced-softmax:lable_smoothing=1", "Did you mean 'label_smoothing'?"),
        ("heads", "softmax+disout:block_siez=3,where=layers.conv", "Did you mean 'block_size'?"),
    ],
)
def test_an_unknown_option_names_its_neighbor_before_training(kind, variant, message, tmp_path):
    recipe = Recipe(kind=kind, title="t", variants=("softmax",))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        run(plan(recipe, [variant], [0], tmp_path), parallel=1)
    assert str(caught.value).count("Did you mean") == 1
    assert not list(tmp_path.iterdir())


def test_words_mean_the_same_in_every_kind_of_run():
    heads, tasks = (Recipe(kind=k, title="t", variants=("softmax",)) for k in KINDS)
    for variant in (
        "softmax",
        "weighted",
        "dropmax:temperature=0.2",
        "balanced-softmax+class-sampling",
        "square-root-sampling:batch_size=7",
        "softmax+disout:where=layers.conv,p=0.1",
    ):
        one, other = heads.run_config(variant, {}), tasks.run_config(variant, {})
        for table in ("head", "regularizer", "training", "classifier_stage"):
            assert getattr(one, table) == getattr(other, table)
    both = tasks.run_config("softmax+dropout:where=layers.conv,p=0.2+distillation:weight=2", {})
    assert (both.regularizer.name, both.distillation.weight) == ("dropout", 2)


@pytest.mark.parametrize(
    ("variant", "tables"),
    [
        ("softmax+distillation", "distillation"),
        ("balanced", "distillation"),
        ("icarl", "distillation, predictor"),
        ("joint", "memory, tasks"),
        ("softmax+memory:per_class=3+alignment", "correction, memory"),
    ],
)
def test_a_variant_for_tasks_is_refused_where_there_are_none(variant, tables, lastlayer):
    recipe = Recipe(title="t", variants=("softmax",))
    message = f"{variant!r} is for classes that come in tasks, lastlayer learn: it sets {tables}"
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        recipe.run_config(variant, {})
    for words in (["train", "--head", variant], ["compare", "--heads", f"softmax;{variant}"]):
        printed = lastlayer(*words)
        assert printed.status == 2
        assert printed.err.splitlines() == [f"error: {message}"]


def test_a_variant_of_two_stages_is_refused_where_there_are_tasks(lastlayer):
    printed = lastlayer("learn", "--methods", "softmax,crt")
    assert printed.status == 2
    assert "classifier_stage is not defined for a sequence of tasks" in printed.err
