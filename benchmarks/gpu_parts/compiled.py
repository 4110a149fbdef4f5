"""Part ``compile``: a training step captured as a CUDA graph, and compiled with one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gpu_parts.bench import Bench, Row
from gpu_parts.cases import HEAD_NAMES, HeadLoss, head_noise, make_head
from gpu_parts.places import relative_error

BOUND = 1e-4
ROWS, FEATURES, CLASSES = 64, 32, 37
#: A compilation takes about so long; one is not begun with less left.
SECONDS = 15.0


def run(bench: Bench) -> None:
    """Capture is quick, so all heads first; then compile them while there is time."""
    # Last the one that is not compiled as a whole: its nodes depend on the numbers.
    names = sorted(bench.wanted(HEAD_NAMES), key=lambda name: name == "dropmax-exact")
    if bench.dry:
        bench.note("capture", "left out: there is no graph of a device to capture")
        names, options = names[:3], {"backend": "aot_eager", "fullgraph": True}
    else:
        options = {"mode": "reduce-overhead", "fullgraph": True}
        for name in names:
            bench.case(f"{name}, captured", partial(captured, name, bench.device))
    for name in names:
        row = bench.case(
            f"{name}, compiled with a graph",
            partial(compiled, name, bench.device, options),
            needs=0.0 if bench.dry else SECONDS,
        )
        if row["status"] in ("wrong", "error"):  # the graph's fault, or the compiler's?
            bench.case(
                f"{name}, compiled, no graph or several",
                partial(compiled, name, bench.device, {}),
                needs=SECONDS,
            )


def _data(seed: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(ROWS, FEATURES, generator=generator).to(device)
    return features, torch.randint(CLASSES, (ROWS,), generator=generator).to(device)


def _trained(module: nn.Module, steps: int, noise: Tensor | None, device: str) -> list[Tensor]:
    """Take steps of SGD; return the losses."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    losses = []
    for step in range(steps):
        features, target = _data(step, device)
        optimizer.zero_grad()  # before the forward pass, which a graph may run in their memory
        loss = module(features, target, noise)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.detach().clone())
    return losses


def compiled(name: str, device: str, options: dict[str, Any]) -> Row:
    """Four steps of the compiled loss beside eager ones, from the same noise.

    Four, for the first one is a rehearsal and the second one is captured.
    """
    torch.compiler.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    module = HeadLoss(make_head(name, FEATURES, CLASSES, device=device))
    eager = copy.deepcopy(module)
    noise = head_noise(module.head, ROWS, device)
    wanted = _trained(eager, 4, noise, device)
    fast = torch.compile(module, dynamic=False, **options)
    found = _trained(fast, 4, noise, device)
    error = max(relative_error(a, b) for a, b in zip(wanted, found, strict=True))
    weights = relative_error(eager.head.classifier.weight, module.head.classifier.weight)
    skips = counters["inductor"]["cudagraph_skips"]
    good = max(error, weights) <= BOUND and not skips
    row: Row = {"status": "ok" if good else "wrong", "error": error, "weight_error": weights}
    return row | ({"message": f"{skips} CUDA graphs skipped"} if skips else {})


def captured(name: str, device: str) -> Row:
    """A whole eager step, optimizer and all, replayed on new data beside an eager one."""
    module = HeadLoss(make_head(name, FEATURES, CLASSES, device=device))
    noise = head_noise(module.head, ROWS, device)
    features, target = _data(0, device)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = module(features, target, noise)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss

    graph, loss = _graph(step)
    start = copy.deepcopy(module)
    wanted = _trained(start, 3, noise, device)
    found = []
    for number in range(3):
        for given, new in zip((features, target), _data(number, device), strict=True):
            given.copy_(new)
        graph.replay()
        found.append(loss.detach().clone())
    error = max(relative_error(a, b) for a, b in zip(wanted, found, strict=True))
    row: Row = {"status": "ok" if error <= BOUND else "wrong", "error": error}
    if noise is not None:
        row |= _fresh_draws(module, features, target)
    return row


def _fresh_draws(module: nn.Module, features: Tensor, target: Tensor) -> Row:
    """A graph that draws by torch's default generator draws anew in every replay."""
    graph, loss = _graph(lambda: module(features, target))
    losses = []
    for _ in range(2):
        graph.replay()
        losses.append(float(loss))
    if losses[0] == losses[1]:
        return {"status": "wrong", "message": "every replay draws the same noise"}
    return {}


def _graph(step: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
        # What waits for the device cannot be captured, and is named here rather than there.
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            loss = step()
    except Exception:
        # Else torch's generator would think of itself as captured from now on.
        torch.cuda.default_generators[0].graphsafe_set_state(torch.Generator("cuda"))
        raise
    return graph, loss
