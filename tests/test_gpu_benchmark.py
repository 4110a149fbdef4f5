"""``benchmarks/gpu.py`` where there is no GPU: it goes through, and what it should see it sees."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.fixture
def parts(gpu) -> ModuleType:
    """The modules that it is made of."""
    for name in ("bench", "draws", "places"):
        importlib.import_module(f"gpu_parts.{name}")
    return importlib.import_module("gpu_parts")


def test_a_dry_run_goes_through_all_parts_and_finds_nothing_wrong(gpu, tmp_path, capsys):
    assert gpu.main(["--dry", "--heads", "sampled", "--out", str(tmp_path)]) == 0
    for part in (*gpu.TOGETHER, *gpu.ALONE):
        document = json.loads((tmp_path / f"gpu-dry-{part}.json").read_text())
        assert document["dry"]
        assert document["torch"] == torch.__version__
        assert {row["status"] for row in document["rows"]} <= {"ok", "note"}
        assert sum(row["status"] == "ok" for row in document["rows"]) >= 1
    printed = capsys.readouterr().out
    assert "steps (cpu" in printed
    assert "Linear + cross_entropy" in printed


def test_without_a_gpu_it_says_so(gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_an_exception_is_a_row_and_what_has_no_time_is_named(gpu, parts, tmp_path):
    bench = parts.bench.Bench("part", "cpu", dry=True, seconds=60.0, path=tmp_path / "part.json")

    def fails():
        raise ValueError("of no use")

    bench.case("bad", fails)
    bench.case("good", lambda: {"error": 0.0})
    bench.case("late", fails, needs=61.0)
    rows = json.loads((tmp_path / "part.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["error", "ok", "not run"]
    assert rows[0]["message"] == "ValueError: of no use"
    assert rows[0]["where"][-1].startswith("tests/test_gpu_benchmark.py:")


def test_neither_nan_nor_another_shape_passes_and_infinities_must_agree(parts):
    error = parts.places.relative_error
    reference = torch.tensor([3.0, 4.0, -math.inf])
    assert error(reference, torch.tensor([3.0, 4.5, -math.inf])) == pytest.approx(0.1)
    assert error(reference, torch.tensor([3.0, math.nan, -math.inf])) == math.inf
    assert error(reference, torch.tensor([3.0, 4.0, -9.0])) == math.inf
    assert error(reference, reference[:2]) == math.inf


def test_a_wrong_value_a_wrong_gradient_and_a_missing_one_are_found(parts):
    places = parts.places
    single = places.VARIANTS[1]

    def compute(place, *, value=1.0, gradient=1.0, other=0.0):
        wrong = 0.0 if place.reference else 1e-3
        x = place.inputs(torch.randn(5, dtype=torch.float64))
        return places.Values(
            {"loss": x * (1 + wrong * value)},
            {"x": x * (1 + wrong * gradient), "y": None if other and not place.reference else x},
        )

    def status(**wrong):
        return places.compare(lambda place: compute(place, **wrong), single, "cpu")["status"]

    assert status(value=0.0, gradient=0.0) == "ok"
    assert status(value=1.0, gradient=0.0) == "wrong"
    assert status(value=0.0, gradient=1.0) == "wrong"
    assert status(value=0.0, gradient=0.0, other=1.0) == "wrong"


@pytest.mark.parametrize(
    "draw",
    [
        lambda like: torch.rand(4, 5, dtype=like.dtype),
        torch.randn_like,
        lambda like: torch.empty_like(like).uniform_(-2.0, 3.0),
        lambda like: torch.empty_like(like).normal_(1.0, 2.0),
        lambda like: torch.empty_like(like).exponential_(2.0),
        lambda like: torch.bernoulli(torch.full_like(like, 0.3)),
        lambda like: torch.empty_like(like).bernoulli_(0.3),
        lambda like: torch.randint(3, 9, (4, 5)).to(like),
        lambda like: torch.randperm(20).to(like),
        lambda like: torch.multinomial(like.new_ones(5), 20, replacement=True).to(like),
    ],
    ids=[
        "rand",
        "randn_like",
        "uniform",
        "normal",
        "exponential",
        "bernoulli",
        "bernoulli_",
        "randint",
        "randperm",
        "multinomial",
    ],
)
def test_both_precisions_see_the_same_draws_of_the_right_distribution(parts, draw):
    found = []
    for dtype in (torch.float64, torch.float32):
        with parts.draws.SharedDraws(3):
            found.append(draw(torch.empty(4, 5, dtype=dtype)).double())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)
    with parts.draws.SharedDraws(3):
        ours = torch.stack([draw(torch.empty(4, 5)) for _ in range(400)]).double()
    torch.manual_seed(0)
    theirs = torch.stack([draw(torch.empty(4, 5)) for _ in range(400)]).double()
    error = 5 * (ours.var() / ours.numel() + theirs.var() / theirs.numel()).sqrt()
    assert (ours.mean() - theirs.mean()).abs() <= error
    assert (ours.std() / theirs.std() - 1).abs() < 0.05
