"""A learner's state as files: the model, the memory, and the optimizer where it goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lastlayer._files import atomic_write
from lastlayer._inputs import Inputs, put_together, take_apart
from lastlayer.incremental.build import build_untrained, new_state
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.memory import RehearsalMemory
from lastlayer.incremental.state import LearnerState
from lastlayer.training.callbacks import load_checkpoint, save_checkpoint

FORMAT, VERSION = "lastlayer incremental learner", 1
MODEL, MEMORY, OPTIMIZER, CONFIG = (
    "model.safetensors",
    "memory.safetensors",
    "optimizer.ckpt",
    "config.toml",
)
Label = int | str


def save_state(
    state: LearnerState, folder: Path, labels: Sequence[Label], *, epochs: int | None = None
) -> None:
    """Write a state that has learned something to a folder, each file whole or not at all.

    ``labels`` are the classes' in order of arrival; ``epochs`` the passes where these fix the
    steps.
    """
    tensors = _prefixed("classifier", state.trained) | _prefixed("correction", state.correction)
    folder.mkdir(parents=True, exist_ok=True)
    counts = state.effective_counts
    about = {
        "format": FORMAT,
        "version": VERSION,
        "labels": list(labels),
        "sizes": state.sizes,
        "effective_counts": [] if counts is None else counts.tolist(),
        "epochs": epochs,
        "own_backbone": state.backbone is not None,
    } | _described(state.blank)
    with atomic_write(folder / MODEL) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})
    state.memory.save(folder / MEMORY, class_order=labels)
    if state.optimizer_state is not None:
        save_checkpoint({"state": state.optimizer_state}, folder / OPTIMIZER)
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(state.config.to_toml(), encoding="utf-8")


def load_state(
    folder: Path,
    config: IncrementalConfig | None = None,
    *,
    backbone: nn.Module | None = None,
    class_order: Sequence[Label] | None = None,
) -> tuple[LearnerState, list[Label], int | None]:
    """Read a state, the classes' labels in order of arrival, and the epochs it was saved with.

    The configuration is the folder's if None, and ``backbone`` the untrained network of the user's
    if the state was learned with one. Labels in another order than ``class_order`` are refused.
    """
    if config is None:
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"{folder} holds no learner: {CONFIG} is missing")
        config = IncrementalConfig.from_toml(folder / CONFIG)
    about, tensors = _read(folder / MODEL)
    labels: list[Label] = about["labels"]
    if class_order is not None and list(class_order[: len(labels)]) != labels:
        raise ValueError(
            f"{folder / MODEL} is of another class order: it begins with {labels[:10]}, "
            f"the run with {list(class_order)[:10]}"
        )
    if about["own_backbone"] and backbone is None:
        raise ValueError(f"{folder} was learned with a network of the user's: give it as backbone")
    if backbone is not None and not about["own_backbone"]:
        raise ValueError(f"{folder} was learned with a backbone given by name: give none")
    state = new_state(config, backbone)
    _load_model(state, about, tensors, folder / MODEL)
    state.memory = RehearsalMemory.load(folder / MEMORY, class_order=labels)
    if config.tasks.carry_optimizer:
        if not (folder / OPTIMIZER).is_file():
            raise FileNotFoundError(f"{folder / OPTIMIZER} is missing: the optimizer cannot go on")
        state.optimizer_state = load_checkpoint(folder / OPTIMIZER)["state"]
    return state, labels, about["epochs"]


def _load_model(
    state: LearnerState, about: dict[str, Any], tensors: dict[str, Tensor], path: Path
) -> None:
    """Give a new state what the model's file holds."""
    state.sizes, state.blank = list(about["sizes"]), _blank(about)
    # Version 0.1 called them told_counts.
    counts = about["effective_counts" if "effective_counts" in about else "told_counts"]
    state.effective_counts = torch.tensor(counts, dtype=torch.float64)
    state.classifier = build_untrained(
        state, state.blank, state.num_classes, state.effective_counts
    )
    if state.config.training.precision == "64-true":
        state.classifier.double()
    try:
        state.classifier.load_state_dict(_of(tensors, "classifier"))
        state.correction.load_state_dict(_of(tensors, "correction"))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the configuration: {error}") from error
    state.classifier.eval()


def _described(blank: Inputs | None) -> dict[str, Any]:
    """Return what a file says of the inputs: the shape of one tensor of numbers, or every part."""
    if blank is None or (isinstance(blank, Tensor) and blank.dtype == torch.float32):
        return {"input_shape": [] if blank is None else list(blank.shape[1:])}
    kind, parts = take_apart(blank)
    listed = [
        [key, str(part.dtype).removeprefix("torch."), list(part.shape[1:])]
        for key, part in parts.items()
    ]
    return {"input_kind": kind, "input_parts": listed}


def _blank(about: dict[str, Any]) -> Inputs:
    if "input_shape" in about:
        return torch.empty((0, *about["input_shape"]))
    parts = {
        key: torch.empty((0, *shape), dtype=getattr(torch, dtype))
        for key, dtype, shape in about["input_parts"]
    }
    return put_together(about["input_kind"], parts)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is corrupt: {error}") from error
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise ValueError(f"{path} is no {FORMAT} of version {VERSION}")
    return about, tensors


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {
        # Copied, for a file cannot hold tensors that share their memory, as tied weights do.
        f"{prefix}.{name}": tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }


def _of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }
