"""The suite's random numbers: the same in every run and order, others with another ``--seed``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import atexit, json, random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st


def draw():
    return [torch.rand(1).item(), float(np.random.rand()), random.random()]


DRAWN = {"module": draw(), "examples": []}
atexit.register(lambda: Path("drawn.json").write_text(json.dumps(DRAWN)))


@pytest.fixture(scope="session")
def wide():
    return draw()


@pytest.fixture
def narrow():
    return draw()


def test_that_may_come_before(wide, narrow):
    draw()


def test_that_draws(wide, narrow):
    DRAWN.update(wide=wide, narrow=narrow, test=draw())


@given(st.integers())
def test_of_examples(number):
    DRAWN["examples"].append(number)
    DRAWN["examples"].append(torch.rand(1).item())  # the same in every example


def documented():
    '''
    >>> DRAWN["doctest"] = draw()
    '''
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[float]]]:
    """What a small suite under the suite's conftest draws, run in three ways."""
    runs = {
        "all": [],
        "some": ["-k", "not before"],
        "seed 1": ["--seed", "1"],
    }
    found = {}
    for name, words in runs.items():
        folder = tmp_path_factory.mktemp("suite")
        shutil.copy(Path(__file__).parents[1] / "conftest.py", folder)
        (folder / "test_small.py").write_text(SUITE)
        command = [sys.executable, "-m", "pytest", "--doctest-modules", "-p", "no:cacheprovider"]
        done = subprocess.run([*command, *words], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found[name] = json.loads((folder / "drawn.json").read_text())
    return found


def test_no_number_depends_on_which_tests_ran_before(drawn):
    assert drawn["some"] == drawn["all"]


def test_another_seed_draws_other_numbers_everywhere(drawn):
    other = drawn["seed 1"]
    assert drawn["all"]["examples"] != other["examples"]
    for name in ("module", "wide", "narrow", "test", "doctest"):
        pairs = zip(drawn["all"][name], other[name], strict=True)
        assert [a != b for a, b in pairs] == [True, True, True], name
