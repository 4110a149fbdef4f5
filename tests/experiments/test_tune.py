import pytest

from lastlayer.experiments import Recipe, tune_variants
from lastlayer.training import RunDirectory

GRID = {"optimizer.lr": [1e-5, 1e-2], "training.batch_size": [20]}


@pytest.fixture(scope="module")
def searched(tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    recipe = Recipe.load(str(tiny_recipe))
    heads = ["dropmax", "softmax"]
    changes = {"training": {"steps": 30}}
    trials, errors = tune_variants(
        recipe, heads, GRID, [100, 101], folder, parallel=1, changes=changes
    )
    assert errors == []
    return folder, trials


def test_the_best_setting_of_each_head_comes_first(searched):
    _, trials = searched
    assert [trial.variant for trial in trials] == ["dropmax", "dropmax", "softmax", "softmax"]
    for better, worse in (trials[:2], trials[2:]):
        assert (better.error, better.nll) < (worse.error, worse.nll)
        assert better.setting == {"optimizer.lr": 1e-2, "training.batch_size": 20}
        assert better.seeds == worse.seeds == 2


def test_trials_are_means_over_held_out_measures_and_know_no_test_error(searched):
    folder, trials = searched
    for trial in trials:
        lr = trial.setting["optimizer.lr"]
        place = folder / f"optimizer.lr={lr}_training.batch_size=20"
        runs = [RunDirectory(place / f"{trial.variant}-seed{seed}") for seed in (100, 101)]
        summaries = [run.summary() for run in runs]
        assert [run.config().optimizer.lr for run in runs] == [lr, lr]
        assert [run.config().evaluate_on for run in runs] == ["validation"] * 2
        assert [summary["measured_on"] for summary in summaries] == ["validation"] * 2
        assert [len(run.predictions()["target"]) for run in runs] == [100, 100]
        errors = [summary["metrics"]["error"] for summary in summaries]
        assert trial.error == pytest.approx(sum(errors) / 2)


def test_a_setting_cannot_turn_the_search_to_the_test_set(tiny_recipe, tmp_path):
    recipe = Recipe.load(str(tiny_recipe))
    changes = {"evaluate_on": "test", "training": {"steps": 2}}
    tune_variants(recipe, ["softmax"], {}, [0], tmp_path, parallel=1, changes=changes)
    run = RunDirectory(tmp_path / "as-is" / "softmax-seed0")
    assert run.summary()["measured_on"] == "validation"


def test_an_unknown_entry_is_refused(tiny_recipe, tmp_path):
    recipe = Recipe.load(str(tiny_recipe))
    with pytest.raises(ValueError, match=r"optimizer\.rate: Extra inputs"):
        tune_variants(recipe, ["softmax"], {"optimizer.rate": [1]}, [0], tmp_path, parallel=1)


def test_values_with_slashes_stay_in_the_folder(tiny_recipe, tmp_path):
    recipe = Recipe.load(str(tiny_recipe))
    changes = {"training": {"steps": 2}}
    grid = {"data.data_dir": ["../elsewhere"]}
    tune_variants(recipe, ["softmax"], grid, [0], tmp_path / "t", parallel=1, changes=changes)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert RunDirectory(tmp_path / "t/data.data_dir=.._elsewhere/softmax-seed0").finished
