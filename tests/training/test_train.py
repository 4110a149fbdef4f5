import math
import signal

import pytest
import torch
import torch.nn.functional as F

from lastlayer.evaluation import apply_temperature, evaluate, fit_temperature
from lastlayer.training import RunConfig, RunDirectory, train
from lastlayer.training.build import build_classifier, load_splits
from lastlayer.training.fit import load_classifier
from lastlayer.training.measuring import predict

BASE = {
    "data": {"train_size": 100, "validation_size": 100},
    "model": {"name": "digits-cnn", "options": {"dropout": 0.5}},
    "training": {"steps": 35, "batch_size": 20, "log_every": 7, "checkpoint_every": 10},
}


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


def config(**changes):
    return RunConfig().updated(BASE).updated(changes)


def records(run):
    return [
        {name: value for name, value in record.items() if name != "elapsed"}
        for record in run.metrics()
    ]


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kill_at(step):
    def progress(at, values):
        if at >= step:
            raise Killed

    return progress


CASES = {
    "dropout and a softmax": {},
    "DropMax's masks": {"head": {"name": "dropmax"}},
    "sampled classes": {"head": {"name": "sampled"}, "optimizer": {"schedule": "constant"}},
    "momentum and steps": {"optimizer": {"name": "sgd", "lr": 0.05, "schedule": "step"}},
    "cosine and clipping": {"optimizer": {"schedule": "cosine"}, "training": {"clip_norm": 0.5}},
    "augmented images": {
        "training": {"augment": [{"name": "crop", "padding": 1}, "flip", "rotate"]},
    },
    "warm-up and Nesterov": {
        "optimizer": {
            "name": "sgd",
            "lr": 0.05,
            "nesterov": True,
            "schedule": "step",
            "milestones": [0.3, 0.7],
            # The first kill finds it half way, the second past it.
            "warmup": 25,
        },
    },
    "double precision": {"training": {"precision": "64-true"}},
    "warm-up and cosine": {"optimizer": {"schedule": "cosine", "warmup": 0.8}},
    "the best weights": {"training": {"validate_every": 4, "select": "best"}},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_run_killed_twice_and_resumed_ends_as_an_uninterrupted_one(tmp_path, changes):
    settings = config(**changes)
    whole = train(settings, tmp_path / "whole")
    for step in (14, 28):
        with pytest.raises(Killed):
            train(settings, tmp_path / "killed", resume=step > 14, progress=kill_at(step))
    killed = RunDirectory.open(tmp_path / "killed")
    # The checkpoint is of step 20, after the record of step 14 and in the middle of a mean.
    assert (killed.checkpoints / "last.ckpt").exists()
    assert not killed.finished
    steps = []
    resumed = train(
        settings, tmp_path / "killed", resume=True, progress=lambda step, _: steps.append(step)
    )
    assert min(steps) > 20
    assert same_weights(whole.state_dict(), resumed.state_dict())
    assert same_weights(whole.predictions(), resumed.predictions())
    assert records(resumed) == records(whole)
    assert resumed.summary()["metrics"] == whole.summary()["metrics"]
    assert list(resumed.checkpoints.iterdir()) == []


EARLY_STOP = {
    "optimizer": {"lr": 0.03, "schedule": "constant"},
    "training": {
        "steps": 300,
        "log_every": 5,
        "validate_every": 5,
        "patience": 2,
        "select": "best",
    },
}


def test_early_stop_survives_a_kill(tmp_path):
    settings = config(**EARLY_STOP)
    whole = train(settings, tmp_path / "whole")
    stopped = records(whole)[-1]["step"]
    assert 25 < stopped < 300
    with pytest.raises(Killed):
        train(settings, tmp_path / "killed", progress=kill_at(25))
    resumed = train(settings, tmp_path / "killed", resume=True)
    assert same_weights(whole.state_dict(), resumed.state_dict())
    assert records(resumed) == records(whole)


@pytest.mark.parametrize("select", ["last", "best"])
def test_a_run_killed_after_its_early_stop_stops_again_at_once(tmp_path, monkeypatch, select):
    settings = config(**EARLY_STOP).updated({"training": {"select": select}})
    whole = train(settings, tmp_path / "whole")

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_tensors", killed)
        with pytest.raises(Killed):
            train(settings, tmp_path / "killed")
    resumed = train(settings, tmp_path / "killed", resume=True)
    assert same_weights(whole.state_dict(), resumed.state_dict())
    assert records(resumed) == records(whole)


def test_best_weights_are_those_of_the_first_least_held_out_error(tmp_path):
    settings = config(**EARLY_STOP)
    splits = load_splits(settings)
    run = train(settings, tmp_path / "run", splits=splits)
    looks = [record for record in records(run) if record["split"] == "validation"]
    least = min(looks, key=lambda look: look["error"])
    assert least is not looks[-1]
    log_prob, _ = predict(load_classifier(run), splits.validation.inputs)
    held_out = evaluate(log_prob, splits.validation.target)
    assert held_out.error == pytest.approx(least["error"], abs=1e-6)
    assert held_out.nll == pytest.approx(least["nll"], rel=1e-4)


def test_the_same_seed_gives_the_same_run_bitwise_and_another_does_not(tmp_path):
    settings = config(head={"name": "dropmax"})
    torch.manual_seed(1)
    first = train(settings, tmp_path / "first")
    torch.manual_seed(2)
    second = train(settings, tmp_path / "second")
    other = train(settings.updated({"seed": 1}), tmp_path / "other")
    assert same_weights(first.state_dict(), second.state_dict())
    assert records(first) == records(second)
    assert not same_weights(first.state_dict(), other.state_dict())


def test_a_finished_run_is_returned_as_it_is(tmp_path, monkeypatch):
    run = train(config(), tmp_path / "run")
    files = [path for path in run.path.rglob("*") if path.name != ".lock"]
    before = {path: path.stat().st_mtime_ns for path in files}

    def refuse(*arguments):
        raise AssertionError("data were read")

    monkeypatch.setattr("lastlayer.training.fit.load_splits", refuse)
    again = train(config(), tmp_path / "run", resume=True)
    assert again.summary() == run.summary()
    assert {path: path.stat().st_mtime_ns for path in files} == before
    with pytest.raises(FileExistsError):
        train(config(), tmp_path / "run")


def test_the_stored_weights_are_the_trained_classifier(tmp_path):
    run = train(config(head={"name": "sparsemax"}), tmp_path / "run")
    log_prob, scores = predict(load_classifier(run), load_splits(config()).test.inputs)
    stored = run.predictions()
    assert torch.equal(log_prob, stored["log_prob"])
    assert torch.equal(scores, stored["scores"])
    assert bool(torch.isfinite(scores).all())


def test_double_precision_is_kept_to_the_end(tmp_path):
    settings = config(head={"name": "dropmax"}, training={"precision": "64-true"})
    run = train(settings, tmp_path / "run")
    inputs, stored = load_splits(settings).test.inputs, run.predictions()["log_prob"]
    log_prob, _ = predict(load_classifier(run), inputs)
    assert log_prob.dtype == stored.dtype == torch.float64
    # Sums of up to 512 products may be taken in another order, which rounds by far less than single
    # precision anywhere on the way would.
    bound = 512 * torch.finfo(torch.float64).eps
    torch.testing.assert_close(log_prob, stored, rtol=bound, atol=bound)
    single, _ = predict(load_classifier(run).float(), inputs)
    assert float((single.double() - stored).abs().max()) > 1000 * bound


def test_training_learns(tmp_path):
    steps = {"steps": 150, "batch_size": 50, "log_every": 50}
    run = train(
        RunConfig().updated({"training": steps, "model": {"name": "digits-cnn"}}), tmp_path / "run"
    )
    # Guessing is wrong nine times in ten; measured over ten seeds: 3.4 to 5.8 %.
    assert run.summary()["metrics"]["error"] < 0.15


def test_records_are_means_since_the_last_record(tmp_path):
    every = train(config(training={"log_every": 1}), tmp_path / "every")
    seventh = train(config(), tmp_path / "seventh")
    losses = [record["loss"] for record in records(every)]
    assert len(losses) == 35
    expected = [sum(losses[k : k + 7]) / 7 for k in range(0, 35, 7)]
    assert [r["step"] for r in records(seventh)] == [7, 14, 21, 28, 35]
    assert [r["loss"] for r in records(seventh)] == pytest.approx(expected, rel=1e-6)


def test_epochs_differ_in_their_order(tmp_path, monkeypatch):
    seen = []
    from lastlayer.training.module import TrainingModule

    step = TrainingModule.training_step

    def spy(self, batch, batch_idx):
        seen.append(batch[0].clone())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", spy)
    train(config(training={"steps": 10}), tmp_path / "run")
    first, second = torch.cat(seen[:5]).flatten(1), torch.cat(seen[5:]).flatten(1)
    assert not torch.equal(first, second)
    assert torch.equal(torch.unique(first, dim=0), torch.unique(second, dim=0))


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_it_readable(tmp_path):
    settings = config(
        head={"name": "dropmax"},
        optimizer={"name": "sgd", "lr": 1e36, "schedule": "constant"},
        training={"log_every": 1},
    )
    with pytest.raises(FloatingPointError, match=r"at step \d+ \(nll=.*kl=.*learning rate"):
        train(settings, tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    assert run.config() == settings
    assert all(math.isfinite(record["nll"]) for record in run.metrics())
    with pytest.raises(FileNotFoundError, match="not finished"):
        run.summary()


@pytest.mark.parametrize("head", ["softmax", "sparsemax"])
def test_temperature_is_fitted_on_the_held_out_part_and_applied_to_the_test_part(tmp_path, head):
    settings = config(head={"name": head}, optimizer={"lr": 0.01})
    splits = load_splits(settings)
    run = train(settings, tmp_path / "run")
    classifier = load_classifier(run)
    _, held_out = predict(classifier, splits.validation.inputs)
    temperature = fit_temperature(held_out, splits.validation.target)
    assert run.summary()["temperature"] == pytest.approx(temperature, rel=1e-9)
    scaled = apply_temperature(run.predictions()["scores"], temperature)
    assert run.summary()["temperature_scaled"] == pytest.approx(
        evaluate(scaled, splits.test.target).as_dict(), nan_ok=True
    )
    # By torch alone, on the linear layer's logits: sparsemax's log-probabilities are not these.
    with torch.no_grad():
        logits, tested = (
            classifier.head.classifier(classifier.features(part.inputs)).double()
            for part in (splits.validation, splits.test)
        )
    target = splits.validation.target
    near = [F.cross_entropy(logits / (temperature * f), target) for f in (0.99, 1.0, 1.01)]
    assert 0.05 < temperature < 20  # not one of its bounds
    assert near[1] < min(near[0], near[2])
    expected = float(F.cross_entropy(tested / temperature, splits.test.target))
    assert run.summary()["temperature_scaled"]["nll"] == pytest.approx(expected, rel=1e-4)
    if head == "sparsemax":
        assert bool(run.predictions()["log_prob"].isneginf().any())


def test_without_a_held_out_part_nothing_is_scaled(tmp_path):
    run = train(config(data={"validation_size": 0}), tmp_path / "run")
    assert "temperature" not in run.summary()
    assert run.summary()["validation_size"] == 0


class Untouchable:
    def __getattribute__(self, name):
        raise AssertionError(f"the test part was asked for {name}")


def test_a_run_measured_on_held_out_examples_never_touches_the_test_part(tmp_path):
    settings = config(evaluate_on="validation", training={"validate_every": 10})
    splits = load_splits(settings)
    object.__setattr__(splits, "test", Untouchable())
    run = train(settings, tmp_path / "run", splits=splits)
    log_prob, _ = predict(load_classifier(run), splits.validation.inputs)
    summary = run.summary()
    assert summary["measured_on"] == "validation"
    assert summary["metrics"]["error"] == evaluate(log_prob, splits.validation.target).error
    assert "temperature" not in summary
    with pytest.raises(AssertionError, match="test part"):
        train(config(), tmp_path / "poisoned", splits=splits)


@pytest.mark.parametrize(
    "changes", [{"evaluate_on": "validation"}, {"training": {"validate_every": 5}}]
)
def test_held_out_examples_that_are_not_there_are_asked_for(tmp_path, changes):
    with pytest.raises(ValueError, match="--validation-size"):
        train(config(data={"validation_size": 0}, **changes), tmp_path / "run")


def test_a_corrupt_checkpoint_is_named_before_training(tmp_path):
    run = RunDirectory.create(tmp_path / "run", config())
    (run.checkpoints / "last.ckpt").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"last\.ckpt is corrupt; remove it"):
        train(config(), run.path, resume=True)
    assert run.metrics() == []


def test_an_interrupt_stays_an_interrupt_and_the_next_one_is_heard(tmp_path):
    def interrupt(step, values):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config(), tmp_path / "run", progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler


def test_training_leaves_the_process_settings_alone(tmp_path):
    import logging

    level = logging.getLogger("lightning.pytorch").level
    train(config(training={"steps": 2}), tmp_path / "run")
    assert not torch.are_deterministic_algorithms_enabled()
    assert logging.getLogger("lightning.pytorch").level == level


def test_seconds_of_a_resumed_run_count_the_part_before(tmp_path):
    with pytest.raises(Killed):
        train(config(), tmp_path / "run", progress=kill_at(28))
    run = RunDirectory.open(tmp_path / "run")
    checkpoint = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    key = next(key for key in checkpoint["callbacks"] if "RecordMetrics" in key)
    before = checkpoint["callbacks"][key]["elapsed"]
    train(config(), run.path, resume=True)
    assert run.summary()["seconds"] >= round(before, 3) > 0
    elapsed = [record["elapsed"] for record in run.metrics()]
    assert elapsed == sorted(elapsed)


@pytest.mark.parametrize("size", [5, 7])
def test_fewer_examples_than_a_batch_are_one_batch(tmp_path, size):
    settings = config(
        data={"train_size": 10 + size, "validation_size": 10},
        training={"steps": 3, "batch_size": 50},
    )
    assert train(settings, tmp_path / "run").summary()["train_size"] == 10 + size


def test_backbone_by_the_shape_of_the_inputs():
    auto = config(model={"name": "auto", "options": {}}).model_copy(
        update={"model": RunConfig().model}
    )
    for shape, name in (((30,), "MLP"), ((1, 8, 8), "DigitsCNN"), ((1, 28, 28), "TutorialCNN")):
        assert type(build_classifier(auto, shape, 10).backbone).__name__ == name
