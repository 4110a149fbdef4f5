import json

import pytest
import torch

from lastlayer.data import class_tasks
from lastlayer.evaluation import TaskMatrix
from lastlayer.incremental import IncrementalConfig, IncrementalRun, learn
from lastlayer.incremental.run import plan_tasks
from lastlayer.incremental.storage import load_state
from lastlayer.training.build import load_splits
from lastlayer.training.randomness import derive_seed

BASE = {
    "data": {"train_size": 120, "validation_size": 0, "options": {"test_per_class": 20}},
    "model": {"name": "mlp", "options": {"hidden": [16], "dropout": 0.2}},
    "optimizer": {"name": "sgd", "lr": 0.05, "schedule": "cosine"},
    "training": {"steps": 12, "batch_size": 10, "log_every": 3, "checkpoint_every": 4},
    "tasks": {"base": 4, "later": 3, "first_steps": 16},
    "memory": {"per_class": 3},
}


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


def config(**changes):
    return IncrementalConfig().updated(BASE).updated(changes)


def kill_at(step):
    def progress(at, values):
        if at >= step:
            raise Killed

    return progress


def entry(run):
    summary = run.summary()["incremental"]
    return {name: value for name, value in summary.items() if name != "seconds"}


def weights(run):
    return load_state(run.learner)[0].trained.state_dict()


CASES = {
    "balanced softmax and distillation": {"distillation": {"kind": "logits"}},
    "weight alignment": {
        "head": {"name": "softmax"},
        "distillation": {"kind": "features", "scale": "root-ratio"},
        "correction": {"kind": "weight-alignment"},
    },
    "bias correction": {
        "head": {"name": "softmax"},
        "correction": {"kind": "bias-correction", "held_out": 0.3},
    },
    "a learned alpha": {"old_classes": {"learn_alpha": True, "batch_size": 20}},
    "an optimizer that goes on": {
        "tasks": {"carry_optimizer": True},
        "optimizer": {"name": "adam"},
    },
    "a reservoir": {"memory": {"total": 17, "selection": "reservoir"}},
    "everything, anew": {"memory": {"everything": True}, "tasks": {"restart": True}},
    "DropMax": {"head": {"name": "dropmax"}, "memory": {"selection": "random"}},
    "balanced sampling": {"training": {"sampler": "class-balanced"}, "head": {"name": "softmax"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return learn(config(), tmp_path_factory.mktemp("runs") / "run")


# -- killed and resumed ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_within_every_task_ends_with_the_same_matrix_and_weights(tmp_path, name):
    settings = config(**CASES[name])
    whole = learn(settings, tmp_path / "whole")
    ends = [settings.task_steps(0)]
    for task in range(1, 4):
        ends.append(ends[-1] + settings.task_steps(task))
    for task, end in enumerate(ends):
        with pytest.raises(Killed):
            learn(settings, tmp_path / "killed", resume=task > 0, progress=kill_at(end - 3))
        assert len(IncrementalRun(tmp_path / "killed").results()) == task
    resumed = learn(settings, tmp_path / "killed", resume=True)
    assert entry(resumed) == entry(whole)
    ours, theirs = weights(resumed), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    kept, wanted = (load_state(run.learner)[0].memory for run in (resumed, whole))
    assert torch.equal(kept.inputs, wanted.inputs)
    assert torch.equal(kept.target, wanted.target)
    ours, theirs = (
        [{k: v for k, v in record.items() if k != "elapsed"} for record in run.metrics()]
        for run in (resumed, whole)
    )
    assert ours == theirs


@pytest.mark.parametrize("moment", ["save_state", "confusions", "_forget_before", "_finish"])
def test_a_run_killed_between_two_tasks_ends_with_the_same_matrix(
    tmp_path, monkeypatch, finished, moment
):
    name = f"lastlayer.incremental.run.{moment}"
    calls = []

    def killed(*arguments, **options):
        calls.append(moment)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(name, killed)
        with pytest.raises(Killed):
            learn(config(), tmp_path / "run")
    assert calls == [moment]
    assert entry(learn(config(), tmp_path / "run", resume=True)) == entry(finished)


def test_a_run_killed_while_its_learner_moves_into_place_is_finished_later(
    tmp_path, monkeypatch, finished
):
    def killed(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(IncrementalRun, "write_summary", killed)
        with pytest.raises(Killed):
            learn(config(), tmp_path / "run")
    resumed = learn(config(), tmp_path / "run", resume=True)
    assert entry(resumed) == entry(finished)


def test_a_finished_run_is_returned_as_it_is(finished):
    before = finished.summary_path.read_bytes()
    assert learn(config(), finished.path, resume=True).finished
    assert finished.summary_path.read_bytes() == before
    with pytest.raises(FileExistsError):
        learn(config(), finished.path)


def test_a_rerun_is_bitwise_equal(tmp_path, finished):
    again = learn(config(), tmp_path / "again")
    assert entry(again) == entry(finished)
    ours, theirs = weights(again), weights(finished)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# -- damaged files --------------------------------------------------------------------------------


def _stopped(tmp_path, task=1, **changes):
    settings = config(**changes)
    end = settings.task_steps(0) + task * settings.task_steps(1)
    with pytest.raises(Killed):
        learn(settings, tmp_path / "run", progress=kill_at(end - 2))
    return IncrementalRun(tmp_path / "run")


@pytest.mark.parametrize("file", ["memory.safetensors", "model.safetensors"])
def test_a_truncated_file_is_named_and_nothing_is_lost(tmp_path, file):
    run = _stopped(tmp_path)
    path = run.task_folder(0) / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{file}"):
        learn(config(), run.path, resume=True)
    path.write_bytes(whole)
    assert learn(config(), run.path, resume=True).finished


def test_a_memory_of_another_class_order_is_refused(tmp_path):
    run = _stopped(tmp_path)
    (tmp_path / "other").mkdir()
    other = _stopped(tmp_path / "other", tasks={"order_seed": 9})
    file = "memory.safetensors"
    (run.task_folder(0) / file).write_bytes((other.task_folder(0) / file).read_bytes())
    with pytest.raises(ValueError, match=r"memory\.safetensors.*order"):
        learn(config(), run.path, resume=True)


def test_a_model_of_another_class_order_is_refused(tmp_path):
    run = _stopped(tmp_path)
    (tmp_path / "other").mkdir()
    other = _stopped(tmp_path / "other", tasks={"order_seed": 9})
    for file in ("memory.safetensors", "model.safetensors"):
        (run.task_folder(0) / file).write_bytes((other.task_folder(0) / file).read_bytes())
    with pytest.raises(ValueError, match=r"model\.safetensors.*class order"):
        learn(config(), run.path, resume=True)


def test_another_configuration_is_refused(tmp_path):
    run = _stopped(tmp_path)
    with pytest.raises(ValueError, match=r"tasks\.order_seed"):
        learn(config(tasks={"order_seed": 9}), run.path, resume=True)


# -- what a run is --------------------------------------------------------------------------------


def test_the_matrix_is_of_predictions_among_the_classes_seen(finished):
    splits = load_splits(config())
    plan = plan_tasks(config(), splits)
    state, labels, _ = load_state(finished.learner)
    assert labels == list(plan.order) == finished.summary()["incremental"]["class_order"]
    target = plan.to_rows(splits.test.target)
    predicted = state.log_prob(state.features(splits.test.inputs)).argmax(-1)
    found = finished.summary()["incremental"]["classifier"]
    matrix = TaskMatrix.from_confusions(found["confusions"], plan.sizes)
    accuracy = float((predicted == target).double().mean())
    assert matrix.final_accuracy == pytest.approx(accuracy)
    assert found["measures"]["average_incremental_accuracy"] == pytest.approx(
        sum(matrix.accuracies) / 4
    )
    sizes = [len(table) for table in found["confusions"]]
    assert sizes == [4, 6, 8, 10]
    # 20 test images of every class seen.
    assert [sum(map(sum, table)) for table in found["confusions"]] == [80, 120, 160, 200]


def test_the_class_counts_are_those_of_data_and_memory(finished):
    results = finished.results()
    assert results[0]["class_counts"] == [12] * 4
    assert results[1]["class_counts"] == [3] * 4 + [12] * 2
    assert results[3]["class_counts"] == [3] * 8 + [12] * 2
    assert results[3]["num_examples"] == 48
    state, _, _ = load_state(finished.learner)
    assert state.trained.head.class_counts.tolist() == [3.0] * 8 + [12.0] * 2


def test_old_counts_are_multiplied_by_alpha_for_the_head_alone(tmp_path):
    run = learn(config(old_classes={"alpha": 0.5}), tmp_path / "run")
    assert run.results()[1]["class_counts"] == [3] * 4 + [12] * 2
    state, _, _ = load_state(run.learner)
    assert state.trained.head.class_counts.tolist() == [1.5] * 8 + [12.0] * 2


def test_without_memory_old_classes_count_epsilon(tmp_path):
    run = learn(config(memory={"per_class": 0}, old_classes={"epsilon": 0.25}), tmp_path / "run")
    state, _, _ = load_state(run.learner)
    assert state.trained.head.class_counts.tolist() == [0.25] * 8 + [12.0] * 2
    assert run.summary()["incremental"]["nearest-mean"] is None


def test_alignment_gives_new_weights_the_old_norm(tmp_path):
    settings = config(head={"name": "softmax"}, correction={"kind": "weight-alignment"})
    run = learn(settings, tmp_path / "run")
    norms = load_state(run.learner)[0].trained.head.classifier.weight.detach().norm(dim=1)
    assert float(norms[:8].mean()) == pytest.approx(float(norms[8:].mean()), rel=1e-5)
    factors = [result["alignment"] for result in run.results()]
    assert factors[0] is None
    assert all(factor > 0 for factor in factors[1:])


def test_a_learned_alpha_moves_and_is_what_the_head_was_told(tmp_path):
    settings = config(old_classes={"learn_alpha": True, "lr": 0.1})
    run = learn(settings, tmp_path / "run")
    alphas = run.summary()["incremental"]["alphas"]
    assert alphas[0] == 1.0
    assert all(alpha != 1.0 for alpha in alphas[1:])
    counts = load_state(run.learner)[0].trained.head.class_counts
    assert float(counts[0]) == pytest.approx(3 * alphas[-1], rel=1e-5)


def test_orders_follow_the_seed_or_are_as_given():
    splits = load_splits(config())
    assert plan_tasks(config(seed=1), splits).order == plan_tasks(config(seed=1), splits).order
    assert plan_tasks(config(seed=1), splits).order != plan_tasks(config(seed=2), splits).order
    kept = config(tasks={"order_seed": 5})
    assert plan_tasks(kept, splits).order == plan_tasks(kept.updated({"seed": 3}), splits).order
    seed = derive_seed(5, "class order")
    assert plan_tasks(kept, splits).order == class_tasks(10, base=4, steps=3, seed=seed).order
    given = config(tasks={"order": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]})
    assert plan_tasks(given, splits).groups[0] == (9, 8, 7, 6)
    assert plan_tasks(config(tasks={"order": "label"}), splits).groups[1] == (4, 5)


def test_classes_that_cannot_be_divided_are_refused(tmp_path):
    with pytest.raises(ValueError, match="share the 7 classes after the base"):
        learn(config(tasks={"base": 3}), tmp_path / "run")
    unset = config().model_dump()
    unset["tasks"] |= {"base": None, "later": 2}
    with pytest.raises(ValueError, match=r"3 equal tasks; set tasks\.base"):
        learn(IncrementalConfig.model_validate(unset), tmp_path / "other")


def test_held_out_examples_are_what_a_search_is_measured_on(tmp_path):
    settings = config(data={"validation_size": 100}, evaluate_on="validation")
    run = learn(settings, tmp_path / "run")
    tables = run.summary()["incremental"]["classifier"]["confusions"]
    assert sum(map(sum, tables[-1])) == 100
    with pytest.raises(ValueError, match="--validation-size"):
        learn(config(evaluate_on="validation"), tmp_path / "none")


def test_the_run_keeps_only_what_it_needs(finished):
    assert sorted(path.name for path in finished.learner.iterdir()) == [
        "config.toml",
        "memory.safetensors",
        "model.safetensors",
    ]
    for task in range(4):
        assert [path.name for path in finished.task_folder(task).iterdir()] == ["result.json"]
    assert not list(finished.checkpoints.iterdir())
    assert json.loads(finished.result_path(2).read_text())["num_new"] == 2


def test_a_damaged_result_is_named(tmp_path):
    run = _stopped(tmp_path)
    run.result_path(0).write_text("{")
    with pytest.raises(ValueError, match=r"result\.json is corrupt"):
        learn(config(), run.path, resume=True)
