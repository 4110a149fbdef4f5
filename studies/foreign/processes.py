"""Two processes that train every network together, with torch's DistributedDataParallel on gloo."""

from __future__ import annotations

import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foreign.library import classifier
from foreign.networks import NUM_CLASSES, Inputs, Network, loss_of
from foreign.outcome import Outcome, WrongError, outcome_of
from foreign.workers import START_SECONDS, networks, prepare

DISTRIBUTED = "two processes"
RANKS = 2
#: Parameters that take no part show themselves in the second step only.
STEPS = 2


def run_on_two(names: list[str], limit: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the cell of every network; a pair of processes serves until one network fails.

    A network that fails with a head is tried alone.
    """
    left = [(name, True) for name in names]
    failed: dict[str, dict[str, Any]] = {}
    while left:
        with tempfile.TemporaryDirectory() as folder:
            for job, cell in _by_a_pair(left, limit, Path(folder)):
                left.remove(job)
                name, with_head = job
                if not with_head and cell["status"] != "works":
                    yield name, cell | {"status": "network cannot"}
                elif not with_head:
                    yield name, failed[name]
                elif cell["status"] in ("wrong", "crash"):
                    failed[name] = cell
                    left.insert(0, (name, False))
                else:
                    yield name, cell


Job = tuple[str, bool]


def _by_a_pair(jobs: list[Job], limit: float, folder: Path) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Yield cells until one is not what it should be: then the two may be out of step."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    pair = [
        context.Process(
            target=_serve,
            args=(rank, list(jobs), folder / "store", limit, other if rank == 0 else None),
            daemon=True,
        )
        for rank in range(RANKS)
    ]
    for process in pair:
        process.start()
    other.close()
    try:
        if not pipe.poll(START_SECONDS):
            raise RuntimeError(f"two processes did not start in {START_SECONDS:g} s")
        pipe.recv()
        for job in list(jobs):
            start = time.perf_counter()
            try:
                late = {"status": "crash", "note": f"more than {limit:g} s"}
                cell = pipe.recv() if pipe.poll(limit) else late
            except EOFError:
                cell = {"status": "crash", "note": "the process ended"}
            yield job, cell | {"seconds": round(time.perf_counter() - start, 1)}
            if cell["status"] in ("wrong", "crash"):
                return
    finally:
        for process in pair:
            process.kill()
            process.join()


def _serve(rank: int, jobs: list[Job], store: Path, limit: float, pipe: Connection | None) -> None:
    prepare()
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=limit),
    )
    if pipe is not None:
        pipe.send("ready")
    for name, with_head in jobs:
        try:
            outcome = _step(networks()[name], rank, with_head)
        except Exception as error:
            outcome = outcome_of(error)
        if pipe is not None:
            pipe.send(outcome.as_dict())


def _step(network: Network, rank: int, with_head: bool) -> Outcome:
    """Train on batches that differ between the ranks; the parameters must not."""
    model = classifier(network) if with_head else network.build()
    before = _digest(model)
    parallel = nn.parallel.DistributedDataParallel(model.train())
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.01)
    target = (torch.arange(4) + 3 * rank) % NUM_CLASSES
    torch.manual_seed(rank)
    for step in range(STEPS):
        inputs = _of_rank(network.inputs(4), rank, step)
        optimizer.zero_grad()
        if with_head:
            loss = inputs.to(parallel, target=target).loss
        else:
            loss = loss_of(inputs.to(parallel), target)
        loss.backward()
        optimizer.step()
    digests: list[str] = [""] * RANKS
    dist.all_gather_object(digests, _digest(model))
    if len(set(digests)) > 1:
        raise WrongError("parameters differ between the processes")
    if digests[0] == before:
        raise WrongError("no parameter has changed")
    return Outcome("works")


def _of_rank(inputs: Inputs, rank: int, step: int) -> Inputs:
    """Turn the rows' features round, so that every rank and step has inputs of its own."""

    def other(tensor: Tensor) -> Tensor:
        return tensor.roll(rank + RANKS * step, 0) if tensor.is_floating_point() else tensor

    kwargs = inputs.kwargs and dict(inputs.kwargs)
    if kwargs and rank:
        kwargs["input_ids"] = kwargs["input_ids"].flip(0)
    return Inputs(tuple(map(other, inputs.args)), kwargs)


def _digest(model: nn.Module) -> str:
    sha = hashlib.sha1()
    for parameter in model.parameters():
        sha.update(parameter.detach().numpy().tobytes())
    return sha.hexdigest()
