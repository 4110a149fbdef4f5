import json
import math
import subprocess
import sys

import pytest
import torch

from lastlayer.training import RunConfig, RunDirectory
from lastlayer.training.callbacks import load_checkpoint
from lastlayer.training.run_directory import SUMMARY_ENTRIES

CONFIG = RunConfig()


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", CONFIG)


def finish(run):
    run.write_summary(dict.fromkeys(SUMMARY_ENTRIES, 1) | {"metrics": {}})


def listing(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_new_run_describes_itself(run):
    assert run.config() == CONFIG
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0] or (
        environment["packages"]["torch"] == torch.__version__
    )
    assert not run.finished


def test_a_run_is_not_overwritten(run):
    with pytest.raises(FileExistsError, match="--resume"):
        RunDirectory.create(run.path, CONFIG)


def test_another_configuration_is_refused_and_the_first_difference_named(run):
    before = listing(run.path)
    other = CONFIG.updated({"training": {"steps": 7}, "head": {"options": {"temperature": 2.0}}})
    with pytest.raises(ValueError, match=r"head\.options\.temperature is None there, 2\.0 here"):
        RunDirectory.create(run.path, other, resume=True)
    with pytest.raises(ValueError, match=r"training\.steps is 1500 there, 7 here"):
        RunDirectory.create(run.path, CONFIG.updated({"training": {"steps": 7}}), resume=True)
    assert listing(run.path) == before


def test_a_finished_run_is_left_as_it_is(run):
    finish(run)
    before = listing(run.path)
    RunDirectory.create(run.path, CONFIG, resume=True)
    assert listing(run.path) == before


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} is not a run"):
        RunDirectory.open(tmp_path)


def test_an_unfinished_run_says_what_to_do(run):
    with pytest.raises(FileNotFoundError, match=r"not finished.*--resume"):
        run.summary()
    for read in (run.state_dict, run.predictions):
        with pytest.raises(FileNotFoundError, match="not finished"):
            read()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"metrics": {}}', "\x00"])
def test_a_corrupt_summary_is_named(run, content):
    run.summary_path.write_text(content)
    with pytest.raises(ValueError, match=rf"{run.summary_path} is corrupt"):
        run.summary()


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"garbage"])
def test_corrupt_tensors_are_named(run, content):
    for path, read in ((run.model_path, run.state_dict), (run.predictions_path, run.predictions)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} is corrupt"):
            read()


def test_a_cut_tensor_file_is_named(run):
    run.write_tensors(run.model_path, {"weight": torch.zeros(100)})
    run.model_path.write_bytes(run.model_path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="corrupt"):
        run.state_dict()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut", b"garbage"])
def test_a_corrupt_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} is corrupt.*remove it"):
        load_checkpoint(path)


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"step": 1}', "\xff"])
def test_a_corrupt_record_is_named_by_its_line(run, line):
    run.append_metrics({"split": "train", "step": 1})
    with run.metrics_path.open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=f"{run.metrics_path}, line 2 is corrupt"):
        run.metrics()


def test_a_record_that_a_kill_cut_off_is_left_out_and_dropped_on_resume(run):
    record = {"split": "train", "step": 1, "nll": 0.5}
    run.append_metrics(record)
    whole = run.metrics_path.read_bytes()
    run.metrics_path.write_bytes(whole + b'{"split": "train", "st')
    assert run.metrics() == [record]
    RunDirectory.create(run.path, CONFIG, resume=True)
    assert run.metrics_path.read_bytes() == whole


def test_a_step_trained_again_counts_once_with_its_newest_record(run):
    for step, value in ((1, 0.1), (2, 0.2), (2, 0.3), (3, 0.4)):
        run.append_metrics({"split": "train", "step": step, "nll": value})
    run.append_metrics({"split": "validation", "step": 2, "nll": 9.0})
    records = [(r["split"], r["step"], r["nll"]) for r in run.metrics()]
    assert records == [
        ("train", 1, 0.1),
        ("train", 2, 0.3),
        ("validation", 2, 9.0),
        ("train", 3, 0.4),
    ]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(run, monkeypatch):
    run.write_tensors(run.model_path, {"weight": torch.ones(2)})
    before = listing(run.path)

    def fail(tensors, path):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("lastlayer.training.run_directory.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        run.write_tensors(run.model_path, {"weight": torch.zeros(2)})
    with pytest.raises(TypeError):
        run.write_json("encoder.json", {"not json": object()})
    assert listing(run.path) == before
    assert torch.equal(run.state_dict()["weight"], torch.ones(2))


def test_tensors_come_back_bitwise(run):
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.tensor([1, 2]), "c": torch.tensor(0.1)}
    run.write_tensors(run.model_path, tensors)
    assert all(torch.equal(run.state_dict()[name], tensors[name]) for name in tensors)


def test_a_second_process_may_not_train_the_same_run_and_a_dead_one_lets_go(tmp_path):
    code = (
        "import sys, time; from lastlayer.training import RunDirectory\n"
        f"with RunDirectory({str(tmp_path)!r}).locked():\n"
        "    print('held', flush=True); time.sleep(900)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(BlockingIOError, match="trained by another process"),
            RunDirectory(tmp_path).locked(),
        ):
            pass
    finally:
        other.kill()
        other.communicate()
    with RunDirectory(tmp_path).locked():
        pass


def test_an_infinite_nll_is_null_in_the_summary_file_and_infinite_when_read(tmp_path):
    run = RunDirectory(tmp_path)
    entries = {"seed": 0, "measured_on": "test", "seconds": 1.0, "input_shape": [2]}
    run.write_summary(entries | {"class_names": ["a"], "metrics": {"error": 0.5, "nll": math.inf}})
    written = json.loads(run.summary_path.read_text(), parse_constant=pytest.fail)
    assert written["metrics"]["nll"] is None
    assert run.summary()["metrics"]["nll"] == math.inf


def test_a_nan_measure_is_refused_instead_of_written(tmp_path):
    run = RunDirectory(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_summary({"metrics": {"nll": math.nan}})
    assert not run.finished
