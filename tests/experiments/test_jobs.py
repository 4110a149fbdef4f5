import json
import re
import threading
from dataclasses import replace

import pytest

from lastlayer.experiments import Recipe, jobs, plan, run
from lastlayer.experiments.kinds import KINDS
from lastlayer.training import RunDirectory

LABELS = ["softmax-seed0", "softmax-seed1", "dropmax-seed0", "dropmax-seed1"]


def listing(folder):
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "figures" not in path.parts
    }


def table_lines(printed):
    return [line for line in printed.out.splitlines() if line.startswith("  ")]


def test_every_head_is_trained_once_per_seed(comparison):
    assert sorted(p.name for p in comparison.folder.iterdir() if p.is_dir()) == sorted(
        [*LABELS, "figures"]
    )
    for label in LABELS:
        summary = RunDirectory(comparison.folder / label).summary()
        head, _, seed = label.rpartition("-seed")
        assert (summary["head"], summary["seed"]) == (head, int(seed))


def test_the_table_pairs_the_seeds(comparison):
    rows = json.loads((comparison.folder / "comparison.json").read_text())["rows"]
    assert [row["head"] for row in rows] == ["softmax", "dropmax"]
    for row in rows:
        assert row["seeds"] == [0, 1]
        for index, seed in enumerate(row["seeds"]):
            summary = RunDirectory(comparison.folder / f"{row['head']}-seed{seed}").summary()
            assert row["error"][index] == summary["metrics"]["error"]
            assert row["nll_scaled"][index] == summary["temperature_scaled"]["nll"]
    difference = sum(a - b for a, b in zip(rows[1]["error"], rows[0]["error"], strict=True)) / 2
    line = next(line for line in table_lines(comparison.printed) if " dropmax " in line)
    assert f"{100 * difference:+.2f} [" in line


def test_without_a_terminal_the_table_is_whole_and_progress_plain_lines(comparison):
    heading = next(line for line in table_lines(comparison.printed) if "Head" in line)
    for column in ("Error %", "NLL", "Brier", "ECE top-1 %", "ECE pooled %", "Seconds"):
        assert column in heading
    assert "Δ error to softmax" in heading
    assert "NLL, scaled" in heading
    for line in comparison.printed.err.splitlines():
        assert re.fullmatch(r"\d/4 runs, \d+/160 steps", line)
    assert comparison.printed.err.splitlines()[-1] == "4/4 runs, 160/160 steps"
    assert "\x1b" not in comparison.printed.out + comparison.printed.err


def test_a_second_call_trains_nothing_and_prints_the_same_table(comparison, lastlayer, monkeypatch):
    before = listing(comparison.folder)
    reports = {"comparison.json", "comparison.md", "report.html"}

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setitem(KINDS, "heads", replace(KINDS["heads"], train=refuse))
    again = lastlayer(*comparison.command)
    assert again.status == 0, again.err
    assert table_lines(again) == table_lines(comparison.printed)
    after = listing(comparison.folder)
    assert after.keys() == before.keys()
    changed = {path.name for path in before if after[path] != before[path]}
    assert changed <= reports


def test_the_report_needs_nothing_else(comparison):
    page = (comparison.folder / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|@import|url\(", re.sub(r'src="data:[^"]+"', "", page))
    assert "Two heads on a few digits" in page
    assert "5.32" in page


def test_other_files_of_a_comparison(comparison):
    markdown = (comparison.folder / "comparison.md").read_text(encoding="utf-8")
    assert markdown.startswith("# Two heads on a few digits")
    assert "| dropmax |" in markdown
    assert "a paper" in markdown
    figures = {path.name for path in (comparison.folder / "figures").iterdir()}
    assert figures == {"comparison.png", "curves.png", "reliability.png"}
    assert (comparison.folder / "dropmax-seed0" / "figures" / "retain.png").is_file()
    assert not list(comparison.folder.rglob("*.partial"))
    assert not list(comparison.folder.rglob("*.ckpt"))


def test_published_numbers_are_printed_beside_ours(comparison):
    assert "a paper" in comparison.printed.out
    assert re.search(r"dropmax +\d+\.\d\d +5\.32 +–", comparison.printed.out)


def test_the_same_runs_one_by_one_are_bitwise_those_side_by_side(comparison, tmp_path):
    recipe = Recipe.load(str(comparison.recipe))
    jobs = plan(recipe, ["softmax", "dropmax"], [1], tmp_path)
    assert run(jobs, parallel=1) == []
    for job in jobs:
        beside = RunDirectory(comparison.folder / job.path.name)
        ours, theirs = RunDirectory(job.path).state_dict(), beside.state_dict()
        assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)


def tiny(tiny_recipe, **changes):
    return Recipe.load(str(tiny_recipe)).model_copy(update=changes)


def test_runs_are_planned_seed_by_seed(tiny_recipe, tmp_path):
    jobs = plan(tiny(tiny_recipe), ["softmax", "dropmax:temperature=0.2"], [3, 4], tmp_path)
    assert [(job.config.seed, job.label) for job in jobs] == [
        (3, "softmax"),
        (3, "dropmax:temperature=0.2"),
        (4, "softmax"),
        (4, "dropmax:temperature=0.2"),
    ]
    assert jobs[1].path == tmp_path / "dropmax_temperature=0.2-seed3"
    assert jobs[1].config.head.options == {"temperature": 0.2}


@pytest.mark.parametrize(
    ("heads", "seeds", "message"),
    [
        ([], [0], "needs a variant and a seed"),
        (["softmax"], [], "needs a variant and a seed"),
        (["softmax", "softmax"], [0], "named twice"),
        (["softmax", "dropmx"], [0], "Did you mean 'dropmax'"),
        (["dropmax:temprature=1"], [0], "temprature"),
        (["class-dropout:retain_prob=2.0"], [0], "retain_prob"),
    ],
)
def test_what_cannot_be_compared_is_said_before_training(
    tiny_recipe, tmp_path, heads, seeds, message
):
    with pytest.raises(ValueError, match=message) as caught:
        plan(tiny(tiny_recipe), heads, seeds, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"options": {"dropuot": 0.5}}}, "no option 'dropuot'"),
        ({"model": {"name": "digit-cnn"}}, "Did you mean 'digits-cnn'"),
        ({"data": {"name": "digit"}}, "Did you mean 'digits'"),
        ({"data": {"train_size": 3}}, "train_size must be at least 10"),
    ],
)
def test_what_cannot_be_built_fails_once_and_before_training(
    tiny_recipe, tmp_path, changes, message
):
    jobs = plan(tiny(tiny_recipe), ["softmax", "dropmax"], [0], tmp_path, changes)
    with pytest.raises(ValueError, match=message):
        run(jobs, parallel=2)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_runs_is_refused_before_training(tiny_recipe, tmp_path):
    recipe = tiny(tiny_recipe)
    assert run(plan(recipe, ["softmax"], [0], tmp_path), parallel=1) == []
    other = plan(recipe, ["dropmax", "softmax"], [0], tmp_path, {"training": {"steps": 41}})
    with pytest.raises(ValueError, match=r"softmax-seed0 .*training\.steps is 40 there, 41 here"):
        run(other, parallel=1)
    assert not (tmp_path / "dropmax-seed0").exists()


def test_a_run_that_fails_does_not_lose_the_others_and_can_be_mended(tiny_recipe, tmp_path):
    huge = {"sparsemax": {"optimizer": {"name": "sgd", "lr": 1e36, "schedule": "constant"}}}
    recipe = tiny(tiny_recipe, variant_config=huge)
    jobs = plan(recipe, ["sparsemax", "softmax"], [0], tmp_path)
    seen = []
    errors = run(jobs, parallel=1, progress=lambda *counts: seen.append(counts))
    assert len(errors) == 1
    assert errors[0].startswith("sparsemax-seed0: the loss is ")
    log = tmp_path / "sparsemax-seed0" / "error.txt"
    assert str(log) in errors[0]
    assert "FloatingPointError" in log.read_text()
    assert RunDirectory(tmp_path / "softmax-seed0").finished
    done, total, finished, runs = seen[-1]
    assert (total, finished, runs) == (80, 1, 2)
    assert 40 <= done < 80


def test_progress_stands_at_the_last_whole_record_and_goes_on(tiny_recipe, tmp_path, monkeypatch):
    (job,) = plan(tiny(tiny_recipe), ["softmax"], [0], tmp_path)
    told, looked = [], threading.Semaphore(0)

    def progress(done, *rest):
        told.append(done)
        looked.release()

    def halting(config, path, *, resume):
        """Write records by pieces, looked at twice after each: once may have begun before it."""
        path.mkdir()
        with (path / "metrics.jsonl").open("w", encoding="utf-8") as file:
            for piece in ('{"st', 'ep": 7}\n', '{"step": 1', "4}", "\n"):
                file.write(piece)
                file.flush()
                while looked.acquire(blocking=False):
                    pass
                for _ in range(2):
                    assert looked.acquire(timeout=20), "progress is told no more"
                seen.append(told[-1])

    seen = []
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    monkeypatch.setitem(KINDS, "heads", replace(KINDS["heads"], train=halting))
    assert run([job], parallel=1, progress=progress) == []
    assert seen == [0, 7, 7, 7, 14]
    assert told == sorted(told)


def test_a_mended_run_loses_its_error(tiny_recipe, tmp_path, monkeypatch):
    jobs = plan(tiny(tiny_recipe), ["softmax"], [0], tmp_path)
    with monkeypatch.context() as patch:

        def fail(*arguments, **options):
            raise RuntimeError("no luck")

        patch.setitem(KINDS, "heads", replace(KINDS["heads"], train=fail))
        assert run(jobs, parallel=1) == [
            f"softmax-seed0: no luck (details in {tmp_path / 'softmax-seed0' / 'error.txt'})"
        ]
    assert run(jobs, parallel=1) == []
    assert not (tmp_path / "softmax-seed0" / "error.txt").exists()
