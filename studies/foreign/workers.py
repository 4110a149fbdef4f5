"""A process that runs one cell after another, and is replaced when a cell ends it or takes long."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import torch

from foreign.networks import Network

#: A process that starts loads torch and the three libraries.
START_SECONDS = 120.0


@cache
def networks() -> dict[str, Network]:
    """Return every network by name."""
    from foreign.hugging_face import transformers_networks
    from foreign.vision import timm_networks, torchvision_networks

    found = [*torchvision_networks(), *timm_networks(), *transformers_networks()]
    return {network.name: network for network in found}


def prepare() -> None:
    """Make a process quiet and use one thread of it."""
    import transformers

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()


class Worker:
    """Runs cells in a process of its own.

    Args:
        limit: seconds for a cell.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._process: multiprocessing.process.BaseProcess | None = None

    def run(self, name: str, part: str) -> dict[str, Any]:
        """Return what became of a part on a network, with its seconds."""
        if self._process is None:
            self._start()
        start = time.perf_counter()
        try:
            self._pipe.send((name, part))
            if self._pipe.poll(self.limit):
                cell: dict[str, Any] = self._pipe.recv()
            else:
                cell = {"status": "crash", "note": f"more than {self.limit:g} s"}
                self.close()
        except (EOFError, ConnectionError):
            cell = {"status": "crash", "note": "the process ended"}
            self.close()
        return cell | {"seconds": round(time.perf_counter() - start, 1)}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        if not self._pipe.poll(START_SECONDS):
            raise RuntimeError(f"a process did not start in {START_SECONDS:g} s")
        self._pipe.recv()


def _serve(pipe: Connection) -> None:
    from foreign.outcome import outcome_of
    from foreign.parts import PARTS

    prepare()
    networks()
    pipe.send("ready")
    while True:
        name, part = pipe.recv()
        torch.manual_seed(0)
        try:
            outcome = PARTS[part](networks()[name])
        except Exception as error:
            outcome = outcome_of(error)
        pipe.send(outcome.as_dict())
