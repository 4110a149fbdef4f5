"""Methods by name: what every word changes, and what is refused."""

import pytest

from lastlayer.heads import HEADS
from lastlayer.incremental import IncrementalConfig, parse_variant
from lastlayer.incremental.methods import ADDITIONS, METHODS

#: What a word alone is to change, written out once more.
BY_WORD = {
    "distillation": {"distillation": {"kind": "logits"}},
    "feature-distillation": {"distillation": {"kind": "features", "scale": "root-ratio"}},
    "alignment": {"correction": {"kind": "weight-alignment"}},
    "bias-correction": {"correction": {"kind": "bias-correction"}},
    "old-classes": {"old_classes": {}},
    "meta": {"old_classes": {"learn_alpha": True}},
    "class-sampling": {"training": {"sampler": "class-balanced"}},
    "memory": {"memory": {}},
}
OPTIONS = {
    "distillation": ("weight=2.5,temperature=4", {"weight": 2.5, "temperature": 4}),
    "feature-distillation": ("scale=constant", {"scale": "constant"}),
    "alignment": ("held_out=0.2", {"held_out": 0.2}),
    "bias-correction": ("held_out=0.2", {"held_out": 0.2}),
    "old-classes": ("alpha=0.5,epsilon=1e-3", {"alpha": 0.5, "epsilon": 1e-3}),
    "meta": ("lr=0.1,batch_size=64", {"lr": 0.1, "batch_size": 64}),
    "class-sampling": ("batch_size=7", {"batch_size": 7}),
    "memory": ("total=30,selection=random", {"total": 30, "selection": "random"}),
}
BY_NAME = {
    "balanced": {
        "head": {"name": "balanced-softmax", "options": {"tau": 0.35}},
        "training": {"sampler": "class-balanced"},
        "distillation": {"kind": "logits", "weight": 0.5, "temperature": 4.0},
    },
    "weighted": {"head": {"name": "class-balanced", "options": {"beta": 1.0}}},
    "icarl": {
        "head": {"name": "softmax", "options": {}},
        "distillation": {"kind": "logits"},
        "predictor": "nearest-mean",
    },
    "joint": {
        "head": {"name": "softmax", "options": {}},
        "memory": {"everything": True},
        "tasks": {"restart": True},
    },
}


def test_every_word_is_tested_here():
    assert set(BY_WORD) == set(ADDITIONS) == set(OPTIONS)
    assert set(BY_NAME) == set(METHODS)
    assert not set(METHODS) & set(HEADS.names())
    assert all(addition.description for addition in ADDITIONS.values())


@pytest.mark.parametrize("word", BY_WORD)
def test_a_word_changes_its_table_and_nothing_else(word):
    name, changes = parse_variant(f"softmax+{word}")
    assert name == f"softmax+{word}"
    assert changes == {"head": {"name": "softmax", "options": {}}} | BY_WORD[word]


@pytest.mark.parametrize("word", BY_WORD)
def test_a_words_options_are_entries_of_its_table(word):
    text, options = OPTIONS[word]
    name, changes = parse_variant(f"balanced-softmax+{word}:{text}")
    assert name == f"balanced-softmax+{word}"
    ((table, alone),) = BY_WORD[word].items()
    assert changes[table] == alone | options
    found = IncrementalConfig().updated(changes).model_dump()[table]
    assert {entry: found[entry] for entry in alone | options} == alone | options


@pytest.mark.parametrize("name", BY_NAME)
def test_a_name_stands_for_a_head_and_additions(name):
    assert parse_variant(name) == (name, BY_NAME[name])
    assert IncrementalConfig().updated(BY_NAME[name]).head.name == BY_NAME[name]["head"]["name"]


@pytest.mark.parametrize("head", HEADS.names())
def test_every_head_is_a_method(head):
    assert parse_variant(head) == (head, {"head": {"name": head, "options": {}}})


def test_options_of_a_name_are_its_heads():
    assert parse_variant("weighted:beta=0.5")[1]["head"]["options"] == {"beta": 0.5}
    assert parse_variant("ldam:scale=16")[1]["head"]["options"] == {"scale": 16}


def test_words_of_one_table_are_joined():
    text = "balanced-softmax+old-classes:alpha=0.5+meta:lr=0.1+distillation+memory:total=9"
    name, changes = parse_variant(text)
    assert name == "balanced-softmax+old-classes+meta+distillation+memory"
    assert changes["old_classes"] == {"alpha": 0.5, "learn_alpha": True, "lr": 0.1}
    assert changes["distillation"] == {"kind": "logits"}
    assert changes["memory"] == {"total": 9}


def test_an_addition_changes_what_a_name_stands_for():
    changes = parse_variant("icarl+distillation:weight=3")[1]
    assert changes["distillation"] == {"kind": "logits", "weight": 3}
    assert changes["predictor"] == "nearest-mean"
    assert parse_variant("icarl+feature-distillation")[1]["distillation"]["kind"] == "features"


@pytest.mark.parametrize(
    ("text", "alpha"), [("1e+3", 1e3), ("2.5E+1", 25.0), ("1e-3", 1e-3), ("+0.5", 0.5), ("7", 7)]
)
def test_a_plus_sign_within_a_number_is_part_of_it(text, alpha):
    method = f"balanced-softmax+old-classes:alpha={text},epsilon=1e+2+distillation"
    name, changes = parse_variant(method)
    assert name == "balanced-softmax+old-classes+distillation"
    assert changes["old_classes"] == {"alpha": alpha, "epsilon": 100.0}


def test_spaces_around_words_do_not_matter():
    assert parse_variant(" softmax + distillation ") == parse_variant("softmax+distillation")


def test_the_tables_of_words_and_names_stay_as_they_are():
    before = str(ADDITIONS), str(METHODS)
    _, changes = parse_variant("icarl+distillation:weight=3")
    changes["distillation"]["weight"] = 9
    parse_variant("joint:label_smoothing=0.1")[1]["memory"]["everything"] = False
    assert before == (str(ADDITIONS), str(METHODS))
    assert "weight" not in parse_variant("icarl")[1]["distillation"]
    assert parse_variant("joint") == ("joint", BY_NAME["joint"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a head needs a name"),
        (
            "nonsense",
            r"unknown head 'nonsense'. Known: balanced, weighted, icarl, joint, .*softmax",
        ),
        ("softmax+", "an addition needs a name"),
        ("softmax+nonsense", "unknown addition 'nonsense'. Known: distillation, "),
        ("softmax+icarl", "unknown addition 'icarl'"),
        ("softmax+distillation+alignment+distillation", "distillation comes twice"),
        ("softmax+distillation:weight", "an option is written key=value; got 'weight'"),
        ("softmax:beta", "an option is written key=value; got 'beta'"),
        ("softmax+distillation+feature-distillation", "distillation and feature-distillation excl"),
        ("softmax+bias-correction+alignment", "bias-correction and alignment exclude each other"),
    ],
)
def test_what_is_no_method_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_variant(text)


@pytest.mark.parametrize("table", sorted({addition.table for addition in ADDITIONS.values()}))
def test_an_unknown_option_is_refused_by_the_configuration(table):
    word = next(word for word, addition in ADDITIONS.items() if addition.table == table)
    _, changes = parse_variant(f"balanced-softmax+{word}:nonsense=1")
    with pytest.raises(ValueError, match=rf"{table}\.nonsense"):
        IncrementalConfig().updated(changes)
