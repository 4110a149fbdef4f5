"""Part ``training``: whole runs on the bundled digits, by the engine and by the command line."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpu_parts.bench import Bench, Row

NEEDED = ("lightning", "pydantic", "tomli_w", "torchmetrics", "sklearn", "scipy")
FOR_COMMANDS = ("cyclopts", "rich", "jinja2", "matplotlib")
#: How far apart the test errors of the device and of the CPU may be, in standard errors.
DEVIATIONS = 4.0


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


def run(bench: Bench) -> None:
    """Heads trained on the device and on the CPU, a run killed and resumed, tasks, commands."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        bench.note("training", f"left out: without {', '.join(missing)} there is no engine")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for head in ("softmax", "dropmax")[: 1 if bench.dry else None]:
            bench.case(f"train {head}", partial(_trained, bench, root, head))
        bench.case("killed and resumed", partial(_resumed, bench, root))
        if not bench.dry:
            bench.case("train in bf16", partial(_half, bench, root))
            for head in ("sparsemax", "entmax15", "dropmax-exact", "sampled-learned", "ldam-drw"):
                bench.case(f"train {head}, short", partial(_short, bench, root, head))
        missing = [name for name in FOR_COMMANDS if importlib.util.find_spec(name) is None]
        if missing:
            bench.note("commands", f"left out: the command line needs {', '.join(missing)}")
        else:
            for name, call in _commands(bench, root).items():
                bench.case(name, call)
        bench.case("incremental learning", partial(_incremental, bench, root))


def _accelerator(device: str) -> str:
    return "gpu" if device == "cuda" else device


def _config(bench: Bench, head: str, device: str, **changes: Any) -> Any:
    from lastlayer.training import RunConfig

    training = {
        "steps": 20 if bench.dry else 300,
        "batch_size": 50,
        "log_every": 5,
        "checkpoint_every": 10,
        "device": _accelerator(device),
    }
    base = {
        "data": {"name": "digits", "validation_size": 0},
        "model": {"name": "mlp", "options": {"hidden": [16]}} if bench.dry else {},
        "head": {"name": head},
        "training": training | changes,
    }
    return RunConfig().updated(base)


def _train(config: Any, path: Path, **options: Any) -> tuple[Any, float]:
    from lastlayer.training import train

    begun = time.perf_counter()
    return train(config, path, **options), time.perf_counter() - begun


def _losses(run: Any) -> list[float]:
    return [record["loss"] for record in run.metrics() if record.get("split") == "train"]


def _trained(bench: Bench, root: Path, head: str) -> Row:
    """The loss falls, and the test error is that of the CPU but for chance."""
    run, seconds = _train(_config(bench, head, bench.device), root / head)
    other, cpu_seconds = _train(_config(bench, head, "cpu"), root / f"{head}-cpu")
    losses = _losses(run)
    errors = [r.summary()["metrics"]["error"] for r in (run, other)]
    size = len(run.predictions()["target"])
    pooled = max(sum(errors) / 2, 1 / size)
    deviations = abs(errors[0] - errors[1]) / (2 * pooled * (1 - pooled) / size) ** 0.5
    good = losses[-1] < losses[0] and deviations <= DEVIATIONS
    return {
        "status": "ok" if good else "wrong",
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "error": errors[0],
        "cpu_error": errors[1],
        "seconds_of_run": round(seconds, 2),
        "cpu_seconds_of_run": round(cpu_seconds, 2),
    }


def _resumed(bench: Bench, root: Path) -> Row:
    """A run killed between two checkpoints and taken up again ends as one that was not."""
    config = _config(bench, "dropmax", bench.device, steps=40)

    def kill(step: int, values: Any) -> None:
        if step >= 25:
            raise Killed

    whole, _ = _train(config, root / "whole")
    with contextlib.suppress(Killed):
        _train(config, root / "killed", progress=kill)
    resumed, _ = _train(config, root / "killed", resume=True)
    first, second = whole.state_dict(), resumed.state_dict()
    differ = {
        name: float((first[name].double() - second[name].double()).abs().max())
        for name in first
        if not torch.equal(first[name], second[name])
    }
    return {"status": "wrong" if differ else "ok", "differ": differ}


def _half(bench: Bench, root: Path) -> Row:
    config = _config(bench, "dropmax", bench.device, precision="bf16-mixed", steps=100)
    run, _ = _train(config, root / "half")
    losses = _losses(run)
    return {"status": "ok" if losses[-1] < losses[0] else "wrong", "last_loss": losses[-1]}


def _short(bench: Bench, root: Path, head: str) -> Row:
    """The engine asks for deterministic algorithms, which some operations do not have."""
    run, _ = _train(_config(bench, head, bench.device, steps=40), root / f"short-{head}")
    losses = _losses(run)
    return {"status": "ok" if losses[-1] < losses[0] else "wrong", "last_loss": losses[-1]}


def _incremental(bench: Bench, root: Path) -> Row:
    """Four tasks of the digits with rehearsal and distillation: better than the last task alone."""
    from lastlayer.incremental import IncrementalConfig, learn

    config = IncrementalConfig().updated(
        {
            "data": {"train_size": 200, "validation_size": 0},
            "model": {"name": "mlp", "options": {"hidden": [16]}},
            "training": {
                "steps": 15 if bench.dry else 100,
                "batch_size": 20,
                "device": _accelerator(bench.device),
            },
            "tasks": {"base": 4, "later": 3},
            "memory": {"per_class": 5},
            "distillation": {"kind": "logits"},
        }
    )
    found = learn(config, root / "tasks").summary()
    error = found["metrics"]["error"]
    return {"status": "ok" if error < 0.8 else "wrong", "error": error}


def _commands(bench: Bench, root: Path) -> dict[str, Callable[[], Row]]:
    """``lastlayer`` as it is typed: train, two stages, information, features, predict."""
    steps, device = ("10" if bench.dry else "100"), _accelerator(bench.device)
    short = ["--steps", steps, "--device", device, "--set", "data.validation_size=0"]
    run = str(root / "typed")
    words: dict[str, list[str]] = {
        "lastlayer train": ["train", "--head", "dropmax", "--out", run, *short],
        "lastlayer train, two stages": [
            *("train", "--head", "crt", "--out", str(root / "stages"), *short),
        ],
        "lastlayer information": ["information", run, "--num-samples", "5"],
        "lastlayer features": ["features", run, "--out", str(root / "features.npz")],
        "lastlayer predict": ["predict", run, str(root / "digits.npz")],
    }
    if bench.dry:
        del words["lastlayer train, two stages"]
    return {name: partial(_typed, given, root) for name, given in words.items()}


def _typed(words: list[str], root: Path) -> Row:
    import numpy as np

    from lastlayer.cli import main

    inputs = root / "digits.npz"
    if not inputs.exists():
        np.savez(inputs, x=np.random.default_rng(0).random((5, 1, 8, 8)).astype(np.float32))
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as stop:
            status = int(stop.code or 0)
    row: Row = {"status": "ok" if status == 0 else "wrong", "printed": out.getvalue()[-300:]}
    return row | ({"message": err.getvalue()[-400:]} if status else {})
