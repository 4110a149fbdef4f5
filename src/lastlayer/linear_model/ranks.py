"""What the processes of a group tell each other, besides sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def check_group(group: Any) -> None:
    """Raise ``RuntimeError`` unless this process is one of an initialised group."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "torch.distributed is not initialised: call torch.distributed.init_process_group"
        )
    if dist.get_rank(group) < 0:
        raise RuntimeError("this process is not of the group")


def gather(value: T, error: Exception | None = None, *, group: Any = None) -> list[T]:
    """Return every rank's value.

    Raises:
        Exception: this rank's error.
        RuntimeError: if another rank had one; so all ranks raise and none waits for another.
    """
    message = None if error is None else f"{type(error).__name__}: {error}"
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, (value, message), group=group)
    if error is not None:
        raise error
    failed = [f"rank {rank} failed: {said}" for rank, (_, said) in enumerate(found) if said]
    if failed:
        raise RuntimeError("; ".join(failed))
    return [value for value, _ in found]


def attempt(compute: Callable[[], T], *, group: Any = None) -> T:
    """Return what this rank computes; an error on one rank is raised on all."""
    try:
        result = compute()
    except Exception as error:
        gather(None, error, group=group)
        raise
    gather(None, group=group)
    return result


def check_same(what: str, values: list[Any]) -> None:
    """Raise ``ValueError`` unless the values of all ranks are equal."""
    for rank, value in enumerate(values):
        if value != values[0]:
            raise ValueError(
                f"ranks differ in their {what}: rank 0 has {values[0]}, rank {rank} has {value}"
            )
