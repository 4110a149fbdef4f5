"""The run directory: plain files that describe, replay and resume one run."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lastlayer._files import atomic_write, read_json, with_null
from lastlayer.training.config import RunConfig

#: What readers of a summary rely on.
SUMMARY_ENTRIES = ("seed", "measured_on", "metrics", "seconds", "input_shape", "class_names")

#: A run over a sequence of tasks has this folder; what a plain run's files hold is in others.
TASKS_FOLDER = "tasks"

PACKAGES = ("lastlayer", "torch", "lightning", "numpy", "scikit-learn")


class RunDirectory:
    """One run's files.

    - ``config.toml``: the complete configuration, replays the run.
    - ``environment.json``: versions, machine, command.
    - ``metrics.jsonl``: one record a line, appended while training.
    - ``checkpoints/``: what resuming needs.
    - ``model.safetensors``, ``predictions.safetensors``, ``summary.json``: written at the end,
      the summary last: a run with a summary is finished.

    Every file but the metrics is written aside and moved into place, so that a killed run leaves
    whole files only.

    Args:
        path: the directory.
    """

    #: What ``config.toml`` holds.
    config_type: ClassVar[type[RunConfig]] = RunConfig
    #: Whether it is a run over a sequence of tasks.
    over_tasks: ClassVar[bool] = False
    #: The command that takes the run up again.
    resumed_with: ClassVar[str] = "lastlayer train --resume"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.toml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.summary_path = self.path / "summary.json"
        self.model_path = self.path / "model.safetensors"
        self.predictions_path = self.path / "predictions.safetensors"
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def create(cls, path: str | Path, config: RunConfig, *, resume: bool = False) -> Self:
        """Make the directory for a run, or take one up again.

        Args:
            path: the directory.
            config: the run's configuration.
            resume: take up what is there; it must have the same configuration.

        Raises:
            FileExistsError: if there is a run and ``resume`` is False.
            ValueError: if there is a run with another configuration.
        """
        run = cls(path)
        if run.config_path.exists():
            if not resume:
                raise FileExistsError(
                    f"{run.path} holds a run already; resume it with --resume, or choose another "
                    "name with --out"
                )
            run.check_config(config)
            if run.finished:
                return run
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        run._write_text(run.config_path, config.to_toml())
        run._write_text(run.path / "environment.json", json.dumps(describe_environment(), indent=1))
        if run.metrics_path.is_file():
            content = run.metrics_path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                with atomic_write(run.metrics_path) as temporary:
                    temporary.write_bytes(whole)
        if cls.over_tasks:
            (run.path / TASKS_FOLDER).mkdir(exist_ok=True)
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run for reading.

        Raises:
            FileNotFoundError: if there is no run at ``path``.
            ValueError: if it is a run over tasks, and this is not their class.
        """
        run = cls(path)
        if not run.config_path.is_file():
            raise FileNotFoundError(f"{run.path} is not a run: {run.config_path} is missing")
        run._check_kind()
        return run

    def _check_kind(self) -> None:
        if (self.path / TASKS_FOLDER).is_dir() and not self.over_tasks:
            raise ValueError(
                f"{self.path} holds a run over a sequence of tasks; read it with lastlayer predict "
                "or lastlayer.incremental.IncrementalClassifier.load"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the same run; a killed process lets go.

        Raises:
            BlockingIOError: if another process trains it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"{self.path} is being trained by another process; wait for it or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def check_config(self, config: RunConfig) -> None:
        """Raise ``ValueError`` if there is a run here whose configuration is not ``config``."""
        if self.config_path.exists() and self.config() != config:
            raise ValueError(
                f"{self.path} holds a run with another configuration: "
                f"{_first_difference(self.config(), config)}"
            )

    # -- reading ----------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary_path.is_file()

    def config(self) -> RunConfig:
        """Return the run's configuration.

        Raises:
            ValueError: if the file is damaged, or it is a run over tasks and this not their class.
        """
        self._check_kind()
        return self.config_type.from_toml(self.config_path)

    def summary(self) -> dict[str, Any]:
        """Return the finished run's summary.

        Raises:
            FileNotFoundError: if the run is not finished.
            ValueError: if the file is corrupt.
        """
        if not self.finished:
            raise FileNotFoundError(
                f"{self.path} is not finished: {self.summary_path.name} is missing; resume it with "
                f"{self.resumed_with}"
            )
        summary = read_json(self.summary_path, object_hook=_with_infinities)
        for entry in SUMMARY_ENTRIES:
            if not isinstance(summary, dict) or entry not in summary:
                raise ValueError(f"{self.summary_path} is corrupt: it has no entry {entry!r}")
        return dict(summary)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of training in the order of their steps.

        A step that was trained again after a resume counts once. A last line that was cut off by
        a kill is left out; any other line that is not JSON is an error.
        """
        if not self.metrics_path.is_file():
            return []
        lines = self.metrics_path.read_bytes().split(b"\n")
        records: dict[tuple[str, int], dict[str, Any]] = {}
        for number, line in enumerate(lines[:-1], start=1):
            try:
                record = json.loads(line)
                records[record["split"], record["step"]] = record
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.metrics_path}, line {number} is corrupt: {error}"
                ) from error
        return sorted(records.values(), key=lambda record: record["step"])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the finished run's weights."""
        return _load_tensors(self.model_path)

    def predictions(self) -> dict[str, Tensor]:
        """Return ``log_prob``, ``scores`` and ``target`` of the data the run was measured on."""
        return _load_tensors(self.predictions_path)

    # -- writing ----------------------------------------------------------------------------------

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one record; it has at least ``split`` and ``step``."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write_tensors(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Write named tensors to one of the run's files."""
        with atomic_write(path) as temporary:
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary
            )

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write one more JSON file of the run."""
        self._write_text(self.path / name, json.dumps(content) + "\n")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write the summary, which marks the run as finished; an infinite measure becomes null.

        Raises:
            ValueError: if there is a NaN: that is not null but a mistake.
        """
        stored = with_null(summary, lambda number: number == math.inf)
        text = json.dumps(stored, indent=1, allow_nan=False)
        self._write_text(self.summary_path, text + "\n")

    def remove_checkpoints(self) -> None:
        """Remove what only resuming needs."""
        for path in self.checkpoints.glob("*.ckpt"):
            path.unlink(missing_ok=True)

    def _write_text(self, path: Path, text: str) -> None:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _with_infinities(entries: dict[str, Any]) -> dict[str, Any]:
    # Of a summary's measures only the NLL can be infinite.
    if "nll" in entries and entries["nll"] is None:
        return entries | {"nll": math.inf}
    return entries


def describe_environment() -> dict[str, Any]:
    """Return versions, machine and command of this process."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor_threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _load_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run is not finished")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is corrupt: {error}") from error


def _first_difference(there: RunConfig, here: RunConfig) -> str:
    left, right = _flat(there.model_dump()), _flat(here.model_dump())
    for name in sorted(left | right):
        if left.get(name) != right.get(name):
            return f"{name} is {left.get(name)!r} there, {right.get(name)!r} here"
    return "no difference"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
