"""The file of a rehearsal memory: what it holds, and what is refused."""

from __future__ import annotations

import json
import operator
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lastlayer._files import atomic_write
from lastlayer._inputs import Inputs, put_together, take_apart

#: A class's own label.
Label = int | str

ENTRY, KIND, VERSION = "lastlayer", "rehearsal memory", 1
#: Tensors beside the inputs.
TENSORS = ("target", "arrival")


def write_memory(
    path: Path,
    inputs: Inputs,
    tensors: Mapping[str, Tensor],
    state: dict[str, Any],
    class_order: Sequence[Label],
) -> None:
    """Write inputs, labels and state, with the order of the classes and a checksum of all of it."""
    order = _as_order(class_order)
    kind, parts = take_apart(inputs)
    tensors = {_file_name(kind, key): part for key, part in parts.items()} | dict(tensors)
    if kind != ONE:
        state = state | {"inputs": kind}
    problem = _problem_of(tensors, state, order)
    if problem:
        raise ValueError(f"class_order does not fit the memory: {problem}")
    text = json.dumps(state | {"class_order": order})
    held = {name: tensor.contiguous() for name, tensor in tensors.items()}
    about = {"kind": KIND, "version": VERSION, "checksum": _checksum(text, held), "state": text}
    with atomic_write(path) as temporary:
        # One entry, for several are written in no fixed order.
        save_file(held, temporary, {ENTRY: json.dumps(about)})


def read_memory(
    path: Path, class_order: Sequence[Label] | None
) -> tuple[Inputs, dict[str, Tensor], dict[str, Any]]:
    """Return the inputs, the other tensors and the state that :func:`write_memory` wrote.

    ``ValueError`` if the file is of another kind or class order, or not whole.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: there is no rehearsal memory")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        about = json.loads(metadata.get(ENTRY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error
    if not isinstance(about, dict) or about.get("kind") != KIND:
        raise ValueError(f"{path} is not the file of a rehearsal memory, but of another kind")
    if about.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {about.get('version')} of the format; this is {VERSION}"
        )
    text = about.get("state", "")
    if about.get("checksum") != _checksum(text, tensors):
        raise ValueError(f"{path} is corrupt: its content does not have its checksum")
    state: dict[str, Any] = json.loads(text)
    problem = _problem_of(tensors, state, state["class_order"])
    if problem:
        raise ValueError(f"{path} is corrupt: {problem}")
    if class_order is not None:
        difference = _first_difference(state["class_order"], _as_order(class_order))
        if difference:
            raise ValueError(f"{path} is of another class order: {difference}")
    others = {name: tensors.pop(name) for name in TENSORS}
    kind = state.get("inputs", ONE)
    parts = {name[len(_file_name(kind, "")) :]: part for name, part in tensors.items()}
    return put_together(kind, parts), others, state


#: Of one tensor the state does not say what the inputs are.
ONE = "tensor"


def _file_name(kind: str, key: str) -> str:
    return "inputs" if kind == ONE else f"inputs.{key}"


def _input_names(names: set[str], kind: str) -> bool:
    """Return whether these are the names of such inputs."""
    if kind == ONE:
        return names == {"inputs"}
    if kind == "tuple":
        return bool(names) and names == {_file_name(kind, str(i)) for i in range(len(names))}
    prefix = _file_name(kind, "")
    return kind == "mapping" and bool(names) and all(name.startswith(prefix) for name in names)


def _as_order(class_order: Sequence[Label]) -> list[Label]:
    order: list[Label] = []
    for label in class_order:
        try:
            order.append(label if isinstance(label, str) else operator.index(label))
        except TypeError:
            raise ValueError(
                f"class_order must hold whole numbers or strings; got {label!r}"
            ) from None
    if len(set(order)) < len(order):
        twice = next(label for label in order if order.count(label) > 1)
        raise ValueError(f"class_order must hold every class once; got {twice!r} twice")
    return order


def _problem_of(
    tensors: Mapping[str, Tensor], state: Mapping[str, Any], order: Sequence[Label]
) -> str | None:
    inputs = set(tensors) - set(TENSORS)
    if set(TENSORS) - set(tensors) or not _input_names(inputs, state.get("inputs", ONE)):
        return f"it holds the tensors {sorted(tensors)} instead of {sorted((*TENSORS, 'inputs'))}"
    target, arrival = tensors["target"], tensors["arrival"]
    for name, tensor in tensors.items():
        if tensor.dim() == 0 or len(tensor) != len(target):
            return f"{name} has shape {tuple(tensor.shape)} for {len(target)} labels"
    if target.dtype != torch.int64 or arrival.dtype != torch.int64:
        return f"labels are {target.dtype}, arrivals {arrival.dtype} instead of int64"
    seen = {int(label): count for label, count in state["num_seen"].items()}
    labels = sorted(set(target.tolist()) | seen.keys())
    if labels and not (labels[0] >= 0 and labels[-1] < len(order)):
        wrong = labels[0] if labels[0] < 0 else labels[-1]
        return f"label {wrong} is outside the {len(order)} classes of its order"
    held = torch.bincount(target, minlength=len(order)).tolist()
    for label, count in enumerate(held):
        if count > seen.get(label, 0):
            return f"it holds {count} examples of label {label}, of {seen.get(label, 0)} that came"
    return None


def _first_difference(there: Sequence[Label], here: Sequence[Label]) -> str | None:
    for position, (left, right) in enumerate(zip(there, here, strict=False)):
        if left != right:
            return f"at position {position} it has {left!r} where {right!r} was asked for"
    if len(there) != len(here):
        return f"it has {len(there)} classes where {len(here)} were asked for"
    return None


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        described = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        total = zlib.crc32(described.encode(), total)
        total = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
