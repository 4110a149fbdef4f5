"""What is read from a finished run in double precision."""

import numpy as np
import pytest
import torch

from lastlayer.experiments.features import run_features
from lastlayer.experiments.information import run_information
from lastlayer.experiments.predict import predict_file
from lastlayer.report.explain import explain_run
from lastlayer.training import RunConfig, train
from lastlayer.training.fit import load_classifier, load_run_splits


def test_features_information_and_pictures_of_a_run_in_double_precision(tmp_path):
    config = RunConfig().updated(
        {
            "head": {"name": "dropmax"},
            "training": {"steps": 5, "batch_size": 20, "precision": "64-true"},
            "data": {"train_size": 80},
        }
    )
    run = train(config, tmp_path / "run")
    classifier, test = load_classifier(run), load_run_splits(run).test
    with torch.no_grad():
        features = classifier.features(test.inputs.double())
    assert features.dtype == torch.float64
    found = torch.from_numpy(run_features(run.path)["x_test"])
    torch.testing.assert_close(found, features, check_dtype=False)  # in batches, up to rounding
    report = run_information(run.path, num_masks=2)
    assert report.bracket is not None
    assert report.layers.scores
    assert explain_run(run.path).exists()
    np.savez(tmp_path / "x.npz", x=test.inputs[:30].numpy())
    predicted = predict_file(run.path, tmp_path / "x.npz").prob
    assert predicted.dtype == torch.float64
    stored = run.predictions()["log_prob"][:30].exp()
    torch.testing.assert_close(predicted, stored, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", ["cam", "infocam"])
def test_class_maps_of_a_run_in_double_precision(tmp_path, lastlayer, method):
    config = RunConfig().updated(
        {
            "model": {"name": "gap-cnn"},
            "training": {"steps": 5, "batch_size": 20, "precision": "64-true"},
            "data": {"train_size": 80},
        }
    )
    run = train(config, tmp_path / "run")
    out = tmp_path / "maps.png"
    printed = lastlayer("explain", run.path, "--method", method, "--out", out)
    assert printed.status == 0, printed.err
    assert out.exists()


def test_a_run_in_half_precision_throughout_is_refused():
    with pytest.raises(ValueError, match=r"training\.precision.*'64-true'"):
        RunConfig().updated({"training": {"precision": "bf16-true"}})
