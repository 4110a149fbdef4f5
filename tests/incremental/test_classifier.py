import json
import tempfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from lastlayer.data import Split
from lastlayer.incremental import IncrementalClassifier

SETTINGS = {
    "optimizer": {"name": "sgd", "lr": 0.05, "schedule": "cosine"},
    "training": {"batch_size": 32},
    "model": {"options": {"hidden": [32]}},
}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    inputs = torch.tensor(data.data / 16, dtype=torch.float32)
    return inputs, torch.tensor(data.target, dtype=torch.int64)


def learner(method="balanced-softmax+distillation", **options):
    chosen = {"backbone": "mlp", "memory": 5, "steps": 30, "settings": SETTINGS} | options
    return IncrementalClassifier(method, **chosen)


def part(digits, *classes, rows=slice(None)):
    inputs, target = digits
    own = torch.isin(target, torch.tensor(classes))
    return inputs[own][rows], target[own][rows]


@pytest.fixture(scope="module")
def two_tasks(digits):
    return learner().learn(*part(digits, 7, 2, 5)).learn(*part(digits, 0, 9))


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_classes_are_added_in_order_of_arrival_and_all_are_predicted(two_tasks, digits):
    assert two_tasks.classes == [2, 5, 7, 0, 9]
    inputs, target = part(digits, 0, 2, 5, 7, 9)
    assert two_tasks.score(inputs, target) > 0.85
    assert set(two_tasks.predict(inputs).tolist()) == {0, 2, 5, 7, 9}
    assert two_tasks.predict_log_prob(inputs).exp().sum(-1).allclose(torch.ones(len(inputs)))
    assert two_tasks.memory.counts(5).tolist() == [5] * 5


def test_old_classes_are_kept_where_plain_training_forgets_them(digits):
    old = part(digits, 0, 1)
    kept, forgetful = learner(), learner("softmax", memory=0)
    for model in (kept, forgetful):
        model.learn(*old).learn(*part(digits, 2, 3))
    assert kept.score(*old) > 0.8
    assert forgetful.score(*old) < 0.2


@pytest.mark.parametrize("name", ["tuple", "split", "pairs", "arrays", "strings"])
def test_data_come_as_tensors_splits_data_sets_arrays_or_with_words_for_labels(digits, name):
    inputs, target = part(digits, 3, 8, rows=slice(0, 60))
    words = ["three" if label == 3 else "eight" for label in target.tolist()]
    given = {
        "tuple": (inputs, target),
        "split": (Split(inputs, target),),
        "pairs": (TensorDataset(inputs, target),),
        "arrays": (inputs.numpy().astype(np.float64), target.numpy()),
        "strings": (inputs, words),
    }[name]
    model = learner(steps=5).learn(*given)
    assert model.classes == (["eight", "three"] if name == "strings" else [3, 8])
    predicted = model.predict(inputs)
    assert isinstance(predicted, list) == (name == "strings")
    assert 0.0 <= model.score(*given) <= 1.0
    assert same(state_of(model), state_of(learner(steps=5).learn(inputs, target))) or (
        name == "strings"
    )


# -- edges ----------------------------------------------------------------------------------------


def test_a_class_seen_again_joins_in_and_grows_nothing(digits):
    model = learner().learn(*part(digits, 0, 1, rows=slice(0, 40)))
    later = part(digits, 0, 1, rows=slice(40, 80))
    model.learn(*later)
    assert model.classes == [0, 1]
    assert model.model.head.num_classes == 2
    counts = model.reports[-1].class_counts
    assert counts == [int((later[1] == k).sum()) + 5 for k in (0, 1)]
    model.learn(*part(digits, 1, 2))
    assert model.classes == [0, 1, 2]
    assert model.reports[-1].class_counts[1] > 100
    assert model.memory.counts(3).tolist() == [5, 5, 5]


def test_one_example_in_a_class_is_enough(digits):
    inputs, target = part(digits, 0, 1)
    one = (target == 1).nonzero()[0]
    rows = torch.cat([(target == 0).nonzero().flatten(), one])
    for method in ("balanced-softmax+distillation", "softmax+bias-correction", "icarl"):
        model = learner(method, steps=5).learn(*part(digits, 4)).learn(inputs[rows], target[rows])
        assert model.memory.counts(3).tolist() == [5, 5, 1]
        assert model.predict(inputs).shape == (len(inputs),)


def test_a_first_task_of_one_class_is_predicted(digits):
    model = learner(steps=3).learn(*part(digits, 4))
    assert set(model.predict(digits[0]).tolist()) == {4}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (lambda d: (d[0][:0], d[1][:0]), {}, "at least one example"),
        (lambda d: ([],), {}, "at least one example"),
        (lambda d: part(d, 0, 1), {"classes": [0]}, "labels 1 are not among the task's classes"),
        (lambda d: part(d, 0), {"classes": [0, 1]}, r"classes \[1\] have no example"),
        (lambda d: part(d, 0), {"classes": [0, 0]}, "each class once"),
        (lambda d: (d[0][:5], d[1][:4]), {}, "5 inputs but 4 labels"),
        (lambda d: (d[0][:5] * torch.nan, d[1][:5]), {}, "example 0 holds NaN"),
        (
            lambda d: (d[0][:5, :9], d[1][:5]),
            {},
            r"must be float32 of shape \(64,\) each",
        ),
    ],
)
def test_bad_data_are_refused_and_nothing_is_lost(digits, data, options, message):
    model = learner(steps=3).learn(*part(digits, 7, 8))
    before, kept = state_of(model), model.memory.inputs.clone()
    with pytest.raises(ValueError, match=message):
        model.learn(*data(digits), **options)
    assert model.classes == [7, 8]
    assert same(before, state_of(model))
    assert torch.equal(kept, model.memory.inputs)
    assert model.learn(*part(digits, 0)).classes == [7, 8, 0]


def test_an_interrupted_task_leaves_the_learner_as_it_was(digits):
    model = learner(settings=SETTINGS | {"training": {"log_every": 2}})
    model.learn(*part(digits, 7, 8))
    before = state_of(model)

    def stop(step, values):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        model.learn(*part(digits, 0), progress=stop)
    assert same(before, state_of(model))
    assert model.classes == [7, 8]


@pytest.mark.parametrize("labels", [[0.5, 1.0], [True, False], [None, 1]])
def test_labels_are_whole_numbers_or_words(labels):
    with pytest.raises(TypeError, match="whole numbers or strings"):
        learner().learn(torch.zeros(2, 3), labels)


def test_nothing_learned_predicts_nothing():
    with pytest.raises(ValueError, match="nothing was learned yet"):
        learner().predict(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("nonsense", {}, "nonsense"),
        ("softmax+nonsense", {}, "unknown addition 'nonsense'"),
        ("softmax+alignment+alignment", {}, "comes twice"),
        ("softmax", {"steps": 3, "epochs": 3}, "epochs or steps"),
        ("softmax", {"epochs": 0}, "epochs must be a whole number of at least 1"),
        ("softmax", {"memory": -1}, "memory"),
        ("softmax+old-classes:alpha=0", {}, "old_classes.alpha"),
        ("softmax+distillation:temperature=0", {}, "distillation.temperature"),
        ("softmax", {"settings": {"nonsense": 1}}, "nonsense"),
    ],
)
def test_bad_arguments_are_refused_before_there_is_any_data(method, options, message):
    with pytest.raises(ValueError, match=message):
        IncrementalClassifier(method, **options)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("softmax+old-classes:alpha=0.5", "takes class counts"),
        ("weighted+meta", "learn_alpha is for balanced-softmax"),
        ("dropmax+bias-correction", "bias-correction is for heads"),
        ("ldam+alignment", "cosines"),
    ],
)
def test_what_a_head_cannot_do_is_refused(digits, method, message):
    with pytest.raises(ValueError, match=message):
        learner(method).learn(*part(digits, 0, 1))


# -- heads and backbones --------------------------------------------------------------------------

#: These make up for rare classes by themselves; the others need balanced batches.
COUNTING = ["weighted", "logit-adjusted", "balanced-softmax"]
PLAIN = ["softmax", "dropmax", "dropmax-mixed", "sparsemax", "sampled", "class-dropout", "ldam"]


@pytest.mark.parametrize("head", COUNTING + PLAIN)
def test_heads_learn_in_tasks(digits, head):
    sampling = "+class-sampling" if head in PLAIN else ""
    model = learner(f"{head}+distillation{sampling}", steps=80)
    model.learn(*part(digits, 0, 1)).learn(*part(digits, 2, 3))
    assert model.score(*part(digits, 0, 1, 2, 3)) > 0.8
    assert model.model.head.num_classes == 4


def test_a_network_of_ones_own_is_copied_and_trained(digits):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 16), nn.ReLU())
    before = network[0].weight.clone()
    model = learner(backbone=network, settings={"optimizer": {"lr": 0.01}})
    model.learn(*part(digits, 0, 1)).learn(*part(digits, 2))
    assert torch.equal(network[0].weight, before)
    assert model.score(*part(digits, 0, 1, 2)) > 0.8


def test_every_task_draws_an_order_of_its_own():
    seen = []

    class Listening(nn.Linear):
        def forward(self, inputs):
            if self.training:
                seen.append(inputs[:, 0].tolist())
            return super().forward(inputs)

    made = IncrementalClassifier("softmax", backbone=Listening(2, 3), memory=0, steps=1)
    inputs = torch.arange(20.0)[:, None].expand(20, 2)
    for task in range(3):  # one batch of the same 20 inputs in each
        made.learn(inputs, 2 * task + torch.arange(20) % 2)
    assert all(sorted(order) == list(range(20)) for order in seen)
    assert len({tuple(order) for order in seen}) == len(seen) == 3


def test_learning_writes_no_file(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Whoever asks for a temporary folder fails.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    told = []
    made = learner(steps=30).learn(*part(digits, 0, 1), progress=lambda step, _: told.append(step))
    made.learn(*part(digits, 2, 3))
    assert made.classes == [0, 1, 2, 3]
    assert told == [25, 30]
    assert list(tmp_path.iterdir()) == []


def test_a_learner_saved_by_version_0_1_is_read(digits, tmp_path):
    """It had another word for the counts that the head was given."""
    original = learner().learn(*part(digits, 0, 1)).learn(*part(digits, 2, 3))
    path = original.save(tmp_path / "learner") / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    about["told_counts"] = about.pop("effective_counts")
    save_file(tensors, path, metadata={"about": json.dumps(about)})
    loaded = IncrementalClassifier.load(tmp_path / "learner")
    assert loaded.model.head.class_counts.tolist() == about["told_counts"]
    inputs, _ = part(digits, 0, 1, 2, 3)
    assert torch.equal(loaded.predict_log_prob(inputs), original.predict_log_prob(inputs))
    task = part(digits, 4, 5)
    assert same(state_of(loaded.learn(*task)), state_of(original.learn(*task)))


def test_epochs_count_exemplars_too(digits):
    model = learner(steps=None, epochs=2)
    seen = []
    data = part(digits, 0, 1, rows=slice(0, 60))
    model.learn(*data, progress=lambda step, _: seen.append(step))
    assert max(seen) == 2 * 2  # 60 examples in batches of 32
    seen.clear()
    model.learn(*part(digits, 2, rows=slice(0, 60)), progress=lambda step, _: seen.append(step))
    assert max(seen) == 2 * 3  # and 10 exemplars


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    ["balanced-softmax+distillation", "softmax+bias-correction", "icarl", "dropmax"],
)
def test_a_saved_learner_predicts_and_goes_on_as_the_original_would(digits, tmp_path, method):
    model = learner(method, steps=10)
    model.learn(*part(digits, 7, 8)).learn(*part(digits, 1))
    loaded = IncrementalClassifier.load(model.save(tmp_path / "learner"))
    assert loaded.classes == model.classes
    inputs = digits[0][:100]
    assert torch.equal(loaded.predict_log_prob(inputs), model.predict_log_prob(inputs))
    for each in (model, loaded):
        each.learn(*part(digits, 0, 3))
    assert same(state_of(model), state_of(loaded))
    assert torch.equal(loaded.memory.inputs, model.memory.inputs)


def test_a_network_of_ones_own_is_needed_for_loading(digits, tmp_path):
    network = nn.Sequential(nn.Linear(64, 8), nn.ReLU())
    model = learner(backbone=network, settings={}, steps=5).learn(*part(digits, 0, 1))
    model.save(tmp_path / "learner")
    loaded = IncrementalClassifier.load(tmp_path / "learner", backbone=network)
    assert torch.equal(loaded.predict(digits[0][:50]), model.predict(digits[0][:50]))
    with pytest.raises(ValueError, match="backbone"):
        IncrementalClassifier.load(tmp_path / "learner")


def test_a_damaged_or_foreign_memory_is_refused(digits, tmp_path):
    model = learner(steps=5).learn(*part(digits, 0, 1))
    other = learner(steps=5).learn(*part(digits, 1, 2))
    folder, foreign = model.save(tmp_path / "a"), other.save(tmp_path / "b")
    path = folder / "memory.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"memory\.safetensors"):
        IncrementalClassifier.load(folder)
    path.write_bytes((foreign / "memory.safetensors").read_bytes())
    with pytest.raises(ValueError, match="order"):
        IncrementalClassifier.load(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"memory\.safetensors"):
        IncrementalClassifier.load(folder)
