"""IncrementalClassifier at its edges: copies, files, settings and tasks with little in them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lastlayer.incremental import (
    BiasCorrection,
    IncrementalClassifier,
    IncrementalConfig,
    IncrementalRun,
    RehearsalMemory,
    learn,
)

WIDTH = 6
SETTINGS = {
    "optimizer": {"name": "adam", "lr": 0.02, "schedule": "constant"},
    "training": {"batch_size": 16},
    "model": {"options": {"hidden": [12], "dropout": 0.2}},
}
CENTRES = 4 * torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(0))


def task(*classes, each=20, seed=0):
    """Examples around the classes' centres."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.tensor(classes).repeat_interleave(each)
    return CENTRES[target] + torch.randn(len(target), WIDTH, generator=generator), target


def learner(method="balanced-softmax+distillation", further=None, **options):
    settings = SETTINGS | (further or {})
    chosen = {"backbone": "mlp", "memory": 4, "steps": 12, "settings": settings} | options
    return IncrementalClassifier(method, **chosen)


def states(made):
    memory = made.memory
    return [*made.model.state_dict().values(), memory.inputs, memory.target, memory.arrival]


def assert_same(a, b):
    assert a.classes == b.classes
    for ours, theirs in zip(states(a), states(b), strict=True):
        assert torch.equal(ours, theirs)
    inputs = task(*range(9))[0]
    assert torch.equal(a.predict_log_prob(inputs), b.predict_log_prob(inputs))


def own_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3))


CASES = {
    "learned alpha": {"method": "balanced-softmax+meta:lr=0.1"},
    "carried optimizer": {"further": {"tasks": {"carry_optimizer": True}}},
    "reservoir": {"method": "softmax+memory:total=11,selection=reservoir"},
    "own backbone": {"backbone": own_network(), "settings": {"training": {"batch_size": 16}}},
    "restarts": {"method": "joint"},
    "epochs": {"steps": None, "epochs": 2},
    "late weights": {"method": "ldam-drw"},
    "double precision": {"further": {"training": {"precision": "64-true", "batch_size": 16}}},
    "learned rates": {
        "further": {
            "regularizer": {"name": "concrete-dropout", "places": [{"where": "layers"}]},
            "tasks": {"carry_optimizer": True},
        }
    },
}


@pytest.fixture(scope="module", params=CASES)
def learned(request):
    options = CASES[request.param]
    made = learner(**options).learn(*task(0, 1, 2)).learn(*task(3, 4))
    return made, options.get("backbone")


# -- copies and files -----------------------------------------------------------------------------


def test_learning_after_a_round_trip_is_learning_without_it(learned, tmp_path):
    made, network = learned
    network = network if isinstance(network, nn.Module) else None
    loaded = IncrementalClassifier.load(made.save(tmp_path / "a"), backbone=network)
    copies = [loaded, pickle.loads(pickle.dumps(made))]
    for each in copies:
        assert_same(each, made)
    whole = copy.deepcopy(made).learn(*task(5, 0))
    for each in copies:
        assert_same(each.learn(*task(5, 0)), whole)
        assert each.reports[-1].alpha == whole.reports[-1].alpha
    assert made.classes == [0, 1, 2, 3, 4]  # none of them moved the original


def test_a_task_that_failed_leaves_the_optimizers_state():
    options = {"further": {"tasks": {"carry_optimizer": True}, "training": {"log_every": 1}}}
    made = learner(**options).learn(*task(0, 1))
    whole = copy.deepcopy(made)

    def stop(step, values):
        if step == 3:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        made.learn(*task(2), progress=stop)
    assert_same(made.learn(*task(3)), whole.learn(*task(3)))


def test_a_task_that_failed_after_its_correction_leaves_the_pairs_of_before(monkeypatch):
    made = learner("softmax+bias-correction").learn(*task(0, 1)).learn(*task(2))
    whole, inputs = copy.deepcopy(made), task(*range(3))[0]
    before = made.predict_log_prob(inputs)
    fitted = []

    def fit(correction, logits, target):
        fitted.append(len(correction.scale))
        return original(correction, logits, target)

    def full(memory, *arguments, **options):
        raise OSError("no space left")

    original = BiasCorrection.fit
    with monkeypatch.context() as patch:
        patch.setattr(BiasCorrection, "fit", fit)
        patch.setattr(RehearsalMemory, "update", full)
        with pytest.raises(OSError, match="no space left"):
            made.learn(*task(3))
    assert fitted == [3]  # a third pair was there when the task failed
    assert torch.equal(made.predict_log_prob(inputs), before)
    assert_same(made.learn(*task(4)), whole.learn(*task(4)))


def test_the_users_network_may_change_afterwards():
    network = own_network()
    made = learner(backbone=network, settings={}).learn(*task(0, 1))
    other = learner(backbone=own_network(), settings={})
    with torch.no_grad():
        network[0].weight.zero_()
    assert_same(made, other.learn(*task(0, 1)))


def test_a_network_with_tied_weights_is_saved(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    network[2].weight = network[0].weight
    made = learner("softmax", backbone=network, settings={}).learn(*task(0, 1)).learn(*task(2))
    loaded = IncrementalClassifier.load(made.save(tmp_path / "a"), backbone=network)
    assert loaded.model.backbone[2].weight is loaded.model.backbone[0].weight
    assert_same(loaded, made)


def test_classes_may_be_given_as_an_array_and_are_saved(tmp_path):
    for classes in (np.array([1, 0]), torch.tensor([1, 0]), (1, 0)):
        made = learner(steps=1).learn(*task(0, 1), classes=classes)
        assert made.classes == [1, 0]
        assert IncrementalClassifier.load(made.save(tmp_path / "a")).classes == [1, 0]


def test_a_backbone_that_is_not_needed_is_refused(tmp_path):
    folder = learner(steps=1).learn(*task(0, 1)).save(tmp_path / "a")
    with pytest.raises(ValueError, match="given by name: give none"):
        IncrementalClassifier.load(folder, backbone=own_network())


def test_nothing_learned_saves_nothing(tmp_path):
    with pytest.raises(ValueError, match="nothing was learned yet"):
        learner().save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_without_a_learner_is_told(tmp_path, there):
    if there:
        (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="a holds no learner: config"):
        IncrementalClassifier.load(tmp_path / "a")


def test_a_missing_optimizer_is_told(tmp_path):
    made = learner(steps=1, further={"tasks": {"carry_optimizer": True}}).learn(*task(0, 1))
    folder = made.save(tmp_path / "a")
    (folder / "optimizer.ckpt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"optimizer\.ckpt is corrupt"):
        IncrementalClassifier.load(folder)
    (folder / "optimizer.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"optimizer\.ckpt is missing"):
        IncrementalClassifier.load(folder)


# -- runs -----------------------------------------------------------------------------------------

RUN = {
    "data": {"train_size": 60, "validation_size": 0, "options": {"test_per_class": 5}},
    "model": {"name": "mlp", "options": {"hidden": [8]}},
    "training": {"steps": 4, "batch_size": 10, "log_every": 1, "checkpoint_every": 1},
    "tasks": {"base": 4, "later": 2},
    "memory": {"per_class": 2},
}


@pytest.mark.parametrize("step", [2, 6])
def test_a_run_that_is_not_finished_is_no_learner_yet(tmp_path, step):
    def stop(at, values):
        if at >= step:
            raise KeyboardInterrupt

    config = IncrementalConfig().updated(RUN)
    with pytest.raises(KeyboardInterrupt):
        learn(config, tmp_path / "run", progress=stop)
    with pytest.raises(FileNotFoundError, match=r"not finished.*resume it with lastlayer learn"):
        IncrementalClassifier.load(tmp_path / "run")
    run = learn(config, tmp_path / "run", resume=True)
    made = IncrementalClassifier.load(run.path)
    assert made.classes == run.summary()["incremental"]["class_order"]
    with pytest.raises(ValueError, match="holds a run over tasks; save the learner to another"):
        made.save(run.path)


def test_a_run_that_cannot_predict_by_exemplars_is_refused_before_training(tmp_path):
    config = IncrementalConfig().updated(RUN)
    short = config.updated({"predictor": "nearest-mean", "memory": {"total": 9}})
    with pytest.raises(ValueError, match=r"memory\.total must be at least 10"):
        learn(short, tmp_path / "run")
    assert not IncrementalRun(tmp_path / "run").results()
    assert not IncrementalRun(tmp_path / "run").metrics()


@pytest.mark.parametrize("content", ["[]", '{"num_new": 2}', "{"])
def test_a_damaged_result_is_named(tmp_path, content):
    run = IncrementalRun(tmp_path)
    run.task_folder(0).mkdir(parents=True)
    run.result_path(0).write_text(content)
    with pytest.raises(ValueError, match=r"result\.json is corrupt"):
        run.results()


# -- settings -------------------------------------------------------------------------------------


def test_steps_may_stand_in_the_settings():
    seen = []
    made = learner(steps=None, further={"training": {"steps": 3, "log_every": 1}})
    made.learn(*task(0, 1), progress=lambda step, _: seen.append(step))
    assert max(seen) == 3
    assert made.epochs is None
    assert learner(steps=None).epochs == 30


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backbone": 5}, TypeError, "backbone must be a name or a torch.nn.Module; got 5"),
        ({"backbone": nn.Linear}, TypeError, "backbone must be a name"),
        ({"backbone": own_network()}, ValueError, r"settings \['model'\] are for a backbone given"),
        (
            {"epochs": 3, "steps": None, "further": {"training": {"steps": 3}}},
            ValueError,
            "epochs or training.steps, not both; got epochs=3",
        ),
        ({"settings": "lr=0.1"}, TypeError, "settings must be a mapping; got 'lr=0.1'"),
        ({"method": "softmax:nonsense=1"}, ValueError, "'softmax' does not take the options"),
        ({"method": "softmax+old-classes:alpha=2"}, ValueError, "takes class counts"),
        ({"method": "ldam-drw+alignment"}, ValueError, "cosines"),
        ({"method": "dropmax+bias-correction"}, ValueError, "bias-correction is for heads"),
        ({"method": "weighted+meta"}, ValueError, "learn_alpha is for balanced-softmax"),
        ({"method": "icarl", "memory": 0}, ValueError, "nearest-mean.*needs memory"),
        ({"method": "softmax+bias-correction", "memory": 1}, ValueError, "two exemplars"),
    ],
)
def test_mistakes_are_told_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        learner(**options)


@pytest.mark.parametrize(
    "options", [{"epochs": np.int64(1), "steps": None}, {"steps": np.int64(2)}]
)
def test_numpy_numbers_are_numbers_and_are_saved(options, tmp_path):
    made = learner(memory=np.int64(2), seed=np.int64(3), **options).learn(*task(0, 1))
    plain = {name: None if value is None else int(value) for name, value in options.items()}
    assert_same(made, learner(memory=2, seed=3, **plain).learn(*task(0, 1)))
    assert_same(IncrementalClassifier.load(made.save(tmp_path / "a")), made)


def test_where_nothing_has_a_gradient_training_says_so():
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"leave torch.inference_mode\(\)"),
    ):
        learner().learn(*task(0, 1))
    with torch.no_grad():
        without = learner().learn(*task(0, 1))
    assert_same(without, learner().learn(*task(0, 1)))


def test_a_network_without_rows_of_features_is_told():
    with pytest.raises(ValueError, match=r"\(1, 8, 8\) each\) to features of shape \(N, D\); of"):
        learner(backbone=nn.Conv2d(1, 3, 3), settings={}).learn(torch.rand(8, 1, 8, 8), [0, 1] * 4)


def test_a_network_whose_output_has_no_one_tensor_of_features_is_told():
    class Pair(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs), inputs

    with pytest.raises(TypeError, match=r"must return a tensor of features .* got tuple"):
        learner(backbone=Pair(WIDTH, 3), settings={}).learn(*task(0, 1))


def test_inputs_of_another_shape_and_unknown_predictors_are_told():
    made = learner(steps=1).learn(*task(0, 1))
    for given in (torch.zeros(3, 9), torch.zeros(3, WIDTH, 1)):
        with pytest.raises(ValueError, match=r"float32 of shape \(6,\) each, as those learned"):
            made.predict(given)
    with pytest.raises(ValueError, match="predictor must be one of"):
        made.predict(torch.zeros(3, WIDTH), predictor="mean")
    with pytest.raises(ValueError, match=r"shape \(6,\) each"):
        made.score(torch.zeros(3, 9), [0, 0, 0])


@pytest.mark.parametrize("selection", ["herding", "random", "reservoir"])
def test_a_learned_network_is_in_evaluation_mode(selection, tmp_path):
    made = learner(f"softmax+memory:selection={selection}", steps=1).learn(*task(0, 1))
    loaded = IncrementalClassifier.load(made.save(tmp_path / "a"))
    for each in (made, loaded):
        assert not any(module.training for module in each.model.modules())


# -- tasks with little in them --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["softmax", "softmax+distillation+alignment", "icarl"])
def test_a_first_task_of_one_class_grows(method):
    made = learner(method, steps=25).learn(*task(4)).learn(*task(0, 7))
    assert made.classes == [4, 0, 7]
    assert made.score(*task(4, 0, 7, seed=1)) > 0.9


@pytest.mark.parametrize(
    "method",
    [
        "balanced-softmax+distillation",
        "softmax+feature-distillation+alignment",
        "softmax+bias-correction",
        "balanced-softmax+meta",
        "icarl",
    ],
)
def test_a_task_of_old_classes_alone_joins_in(method):
    made = learner(method, steps=25).learn(*task(0, 1)).learn(*task(2, 3))
    before = copy.deepcopy(made._state.correction.state_dict())
    made.learn(*task(3, 0, seed=2))
    assert made.classes == [0, 1, 2, 3]
    assert made.model.head.num_classes == 4
    report = made.reports[-1]
    # All of the new examples and the memory: nothing is held out where nothing is fitted.
    assert (report.num_new, report.num_examples, report.alignment) == (0, 40 + 16, None)
    assert report.class_counts == [24, 4, 4, 24]
    after = made._state.correction.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert made.score(*task(0, 1, 2, 3, seed=1)) > 0.9
    assert made.learn(*task(5)).classes == [0, 1, 2, 3, 5]


def test_a_memory_of_fewer_exemplars_than_classes_cannot_predict_by_them():
    made = learner("icarl", {"memory": {"total": 3}}).learn(*task(0, 1, 2))
    assert made.predict(task(0)[0]).shape == (20,)
    made.learn(*task(3, 4))
    assert len(made.memory) == 0
    with pytest.raises(ValueError, match="holds some of 0 of the 5 classes"):
        made.predict(task(0)[0])
    assert made.predict(task(0)[0], predictor="classifier").shape == (20,)


def test_balanced_softmax_counts_epsilon_for_what_a_short_memory_lacks():
    further = {"memory": {"total": 3}, "old_classes": {"epsilon": 0.5}}
    made = learner("balanced-softmax", further).learn(*task(0, 1, 2)).learn(*task(3, 4))
    assert made.model.head.class_counts.tolist() == [1.0] * 3 + [20.0] * 2
    made.learn(*task(5))
    assert made.model.head.class_counts.tolist() == [0.5] * 5 + [20.0]
    assert bool(made.predict_log_prob(task(0)[0]).isfinite().all())


def test_a_correction_without_old_examples_to_spare_warns_and_stays_out():
    further = {"memory": {"total": 2}}
    made = learner("softmax+bias-correction", further).learn(*task(0, 1))
    with pytest.warns(UserWarning, match="bias-correction needs held-out examples of old and of"):
        made.learn(*task(2, 3))
    correction = made._state.correction
    assert correction.sizes.tolist() == [2, 2]
    assert correction.scale.tolist() == [1.0, 1.0]
    assert correction.bias.tolist() == [0.0, 0.0]
    assert made.predict(task(2)[0]).shape == (20,)


@pytest.mark.parametrize("alpha", [1e-4, 0.5, 1e4])
def test_a_fixed_alpha_may_be_any_positive_number_and_is_reported_as_given(alpha):
    made = learner(f"balanced-softmax+old-classes:alpha={alpha}").learn(*task(0, 1))
    made.learn(*task(2))
    assert [report.alpha for report in made.reports] == [alpha, alpha]
    told = made.model.head.class_counts.tolist()
    assert told == pytest.approx([4 * alpha, 4 * alpha, 20.0])


def test_batch_norm_counts_every_step_though_meta_batches_are_looked_at_between():
    network, settings = own_network(), {"training": {"batch_size": 16}}
    made = learner("balanced-softmax+meta:lr=0.1", backbone=network, steps=5, settings=settings)
    made.learn(*task(0, 1, 2)).learn(*task(3, 4))
    counted = [
        int(value)
        for name, value in made.model.state_dict().items()
        if name.endswith("num_batches_tracked")
    ]
    assert counted == [10]  # two tasks of five steps
