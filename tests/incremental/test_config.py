"""The configuration of a run over tasks: steps, what does not fit together, and its file."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.incremental import IncrementalConfig, parse_variant
from lastlayer.incremental.sections import DistillationConfig, MemoryConfig

METHODS = [
    "softmax",
    "weighted",
    "icarl",
    "joint",
    "balanced-softmax:tau=0.5+old-classes:alpha=0.5,epsilon=1e-3+distillation:temperature=4",
    "softmax+bias-correction:held_out=0.25+memory:per_class=7,selection=random",
    "balanced-softmax+meta:lr=0.1+feature-distillation+memory:total=40",
    "ldam:scale=16+class-sampling",
]


def config(changes):
    return IncrementalConfig().updated(changes)


# -- steps ----------------------------------------------------------------------------------------


@given(
    steps=st.integers(1, 500),
    first=st.none() | st.integers(1, 500),
    later=st.integers(0, 6),
    restart=st.booleans(),
)
@settings(max_examples=50)
def test_steps_of_tasks_and_of_all_together(steps, first, later, restart):
    tasks = {"later": later, "restart": restart} | ({} if first is None else {"first_steps": first})
    made = config({"tasks": tasks, "training": {"steps": steps}})
    alone = [first or steps] + [steps] * later
    # Begun anew, a task is trained for as long as all so far.
    wanted = [sum(alone[: task + 1]) for task in range(1 + later)] if restart else alone
    assert [made.task_steps(task) for task in range(1 + later)] == wanted
    assert made.total_steps == sum(wanted)


# -- what does not fit together -------------------------------------------------------------------

RESERVOIR = {"total": 20, "selection": "reservoir"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"validate_every": 5}}, "training.validate_every is not defined"),
        ({"classifier_stage": {"sampler": "class-balanced"}}, "classifier_stage is not defined"),
        ({"training": {"devices": 2}}, "one device"),
        ({"head": {"options": {"class_counts": [1, 2]}}}, "class_counts and weight change"),
        ({"head": {"options": {"weight": [1.0]}}}, "class_counts and weight change"),
        ({"tasks": {"restart": True, "carry_optimizer": True}}, "no optimizer state to carry"),
        (
            {"optimizer": {"warmup": 20, "schedule": "cosine"}, "tasks": {"first_steps": 20}},
            "optimizer.warmup must be below tasks.first_steps; got 20 of 20",
        ),
        ({"predictor": "nearest-mean", "memory": {"per_class": 0}}, "exemplar of every class"),
        ({"predictor": "nearest-mean", "memory": {"total": 0}}, "exemplar of every class"),
        ({"predictor": "nearest-mean", "memory": RESERVOIR}, "one reservoir over all"),
        (
            {"correction": {"kind": "bias-correction"}, "memory": {"per_class": 1}},
            "two exemplars of every class.*per_class=1",
        ),
        (
            {"old_classes": {"learn_alpha": True}, "memory": {"per_class": 0}},
            "learned on exemplars",
        ),
        ({"old_classes": {"learn_alpha": True, "alpha": 100}}, r"begin in \(0\.01, 100\); got 100"),
        ({"old_classes": {"learn_alpha": True, "alpha": 0.01}}, r"begin in \(0\.01, 100\)"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_few_words(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        config(changes)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    "changes",
    [
        {"predictor": "nearest-mean", "memory": {"per_class": 0, "everything": True}},
        {"predictor": "nearest-mean", "memory": {"per_class": 0, "total": 20}},
        {"predictor": "nearest-mean", "memory": {"selection": "reservoir"}},
        {"correction": {"kind": "bias-correction"}, "memory": {"per_class": 2}},
        {"correction": {"kind": "bias-correction"}, "memory": {"per_class": 0, "total": 9}},
        {"old_classes": {"alpha": 1e4}},
        {"old_classes": {"alpha": 1e-4}},
        {"optimizer": {"warmup": 0.5, "schedule": "cosine"}, "tasks": {"first_steps": 1}},
    ],
)
def test_what_fits_is_not_refused(changes):
    assert config(changes).updated({}) == config(changes)


@pytest.mark.parametrize(
    ("changes", "entry"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"tasks": {"nonsense": 1}}, r"tasks\.nonsense"),
        ({"memory": {"size": 1}}, r"memory\.size"),
        ({"tasks": {"base": 0}}, r"tasks\.base"),
        ({"tasks": {"later": -1}}, r"tasks\.later"),
        ({"tasks": {"first_steps": 0}}, r"tasks\.first_steps"),
        ({"tasks": {"order": "backwards"}}, r"tasks\.order"),
        ({"tasks": {"order": [0, -1]}}, r"tasks\.order"),
        ({"tasks": {"order_seed": -1}}, r"tasks\.order_seed"),
        ({"memory": {"per_class": -1}}, r"memory\.per_class"),
        ({"memory": {"total": -1}}, r"memory\.total"),
        ({"memory": {"selection": "best"}}, r"memory\.selection"),
        ({"old_classes": {"alpha": 0}}, r"old_classes\.alpha"),
        ({"old_classes": {"alpha": float("inf")}}, r"old_classes\.alpha"),
        ({"old_classes": {"epsilon": 0}}, r"old_classes\.epsilon"),
        ({"old_classes": {"lr": float("inf")}}, r"old_classes\.lr"),
        ({"old_classes": {"batch_size": 0}}, r"old_classes\.batch_size"),
        ({"distillation": {"kind": "all"}}, r"distillation\.kind"),
        ({"distillation": {"weight": -1}}, r"distillation\.weight"),
        ({"distillation": {"temperature": 0}}, r"distillation\.temperature"),
        ({"distillation": {"scale": "new"}}, r"distillation\.scale"),
        ({"correction": {"kind": "some"}}, r"correction\.kind"),
        ({"correction": {"held_out": 1}}, r"correction\.held_out"),
        ({"predictor": "mean"}, "predictor"),
    ],
)
def test_an_unknown_entry_or_a_value_out_of_range_is_named(changes, entry):
    with pytest.raises(ValueError, match=rf"invalid configuration: {entry}"):
        config(changes)


# -- tables ---------------------------------------------------------------------------------------


@given(weight=st.floats(0, 10), old=st.integers(1, 50), new=st.integers(0, 50))
def test_the_distillation_factor_by_its_three_scales(weight, old, new):
    def factor(scale):
        return DistillationConfig(weight=weight, scale=scale).factor(old, new)

    assert factor("constant") == weight
    assert factor("old-share") == pytest.approx(weight * old / (old + new))
    if new:
        assert factor("root-ratio") ** 2 == pytest.approx(weight**2 * old / new)


@pytest.mark.parametrize(
    ("entries", "budget", "at_most"),
    [
        ({}, (20, None), 20),
        ({"per_class": 0}, (0, None), 0),
        ({"total": 9}, (None, 9), None),
        ({"total": 0}, (None, 0), 0),
        ({"everything": True}, (None, None), None),
    ],
)
def test_a_memorys_budget(entries, budget, at_most):
    memory = MemoryConfig(**entries)
    assert (memory.budget["per_class"], memory.budget["total"]) == budget
    assert memory.at_most_per_class == at_most


# -- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_configuration_comes_back_from_its_file(tmp_path, method):
    made = config(parse_variant(method)[1]).updated(
        {
            "seed": 3,
            "tasks": {"base": 4, "later": 3, "order": [3, 1, 2, 0], "first_steps": 7},
            "data": {"validation_size": 0, "options": {"test_per_class": 20}},
        }
    )
    path = tmp_path / "config.toml"
    path.write_text(made.to_toml(), encoding="utf-8")
    assert IncrementalConfig.from_toml(path) == made
    assert IncrementalConfig.from_toml(path).tasks.order == (3, 1, 2, 0)


def test_the_default_comes_back_and_is_for_balanced_softmax(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(IncrementalConfig().to_toml(), encoding="utf-8")
    assert IncrementalConfig.from_toml(path) == IncrementalConfig()
    assert IncrementalConfig().head.name == "balanced-softmax"


def test_a_file_with_a_mistake_is_named(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[memory]\nsize = 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.toml is not a run configuration: memory\.size"):
        IncrementalConfig.from_toml(path)
