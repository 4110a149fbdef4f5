"""What several rooms test with: small runs on scikit-learn's digits, which need no files."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

TINY_RECIPE = """
title = "Two heads on a few digits"
source = "a test"
seeds = 2
variants = ["softmax", "dropmax"]

[config.data]
train_size = 100
validation_size = 100

[config.model]
name = "digits-cnn"
options = { dropout = 0.5 }

[config.training]
steps = 40
batch_size = 20
log_every = 10

[published]
softmax = { "a paper" = 7.09, "another" = 7.17 }
dropmax = { "a paper" = 5.32 }
"""


class Printed(NamedTuple):
    """What a command printed and how it ended."""

    out: str
    err: str
    status: int


def lastlayer(*words: object) -> Printed:
    """Call the command line in this process."""
    from lastlayer.cli import main

    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Printed(out.getvalue(), err.getvalue(), status)


class Comparison(NamedTuple):
    """A finished comparison of softmax and DropMax over two seeds."""

    recipe: Path
    folder: Path
    printed: Printed
    command: tuple[object, ...]


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv("LASTLAYER_DATA", raising=False)


@pytest.fixture(name="lastlayer", scope="session")
def lastlayer_fixture() -> object:
    """The command line as a function from words to what it printed."""
    return lastlayer


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe file for runs of under a second."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Comparison:
    """Softmax and DropMax over two seeds, trained in two processes; not to be changed."""
    folder = tmp_path_factory.mktemp("comparison") / "tiny"
    command = ("compare", "--recipe", tiny_recipe, "--out", folder, "--jobs", 2)
    with pytest.MonkeyPatch.context() as patch:  # set up before any test's own environment
        patch.delenv("LASTLAYER_DATA", raising=False)
        printed = lastlayer(*command)
    assert printed.status == 0, printed.err
    return Comparison(tiny_recipe, folder, printed, command)


KILL_SECONDS = 900  # a guard against hanging, not a bound


@pytest.fixture(scope="session")
def kill_when() -> Callable[..., None]:
    """Start the command line in a process of its own and kill it as soon as something holds."""

    def kill(words: Sequence[object], reached: Callable[[], bool]) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "lastlayer.cli", *map(str, words)],
            # On as many threads as this process.
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + KILL_SECONDS
        while not reached():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"not reached: {process.communicate()[1].decode()}")
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    return kill
