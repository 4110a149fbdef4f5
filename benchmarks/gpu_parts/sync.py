"""Part ``sync``: no step waits for the device, and every step has a deterministic form."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from gpu_parts.bench import Bench, Row, failure, ours_at
from gpu_parts.cases import (
    HEAD_NAMES,
    HEAD_OPTIONS,
    REGULARIZER_OPTIONS,
    Regularized,
    loss_of,
    make_head,
    make_losses,
)
from lastlayer.heads import attach
from lastlayer.models import GapCNN
from lastlayer.regularizers import insert

Step = Callable[[], None]
Make = Callable[[str], Step]


def run(bench: Bench) -> None:
    """Every head, loss and regularizer, a network with both: two warm steps, then the checks."""
    cases: dict[str, Make] = {
        **{f"head {n}": partial(head_step, n) for n in bench.wanted([*HEAD_NAMES, *HEAD_OPTIONS])},
        **{f"loss {name}": partial(loss_step, name) for name in make_losses(11)},
        **{f"regularizer {name}": partial(regularizer_step, name) for name in REGULARIZER_OPTIONS},
        "network with disout and dropmax": network_step,
    }
    for name, make in cases.items():
        if bench.dry:
            bench.case(f"{name}, deterministic", partial(deterministic, make, bench.device))
            continue
        bench.case(name, partial(waits, make, bench.device))
        bench.case(f"{name}, deterministic", partial(deterministic, make, bench.device))
    if bench.dry:
        bench.note("waiting for the device", "left out: there is no device to wait for")


def _train(parameters: list[nn.Parameter], loss: Callable[[], torch.Tensor]) -> Step:
    optimizer = torch.optim.SGD(parameters, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss())
        optimizer.step()

    return step


def head_step(name: str, device: str) -> Step:
    head = make_head(name, 32, 11, device=device)
    features = torch.randn(24, 32).to(device)
    target = torch.randint(11, (24,)).to(device)
    return _train(list(head.parameters()), lambda: loss_of(head, features, target))


def loss_step(name: str, device: str) -> Step:
    loss = make_losses(11)[name].to(device)
    logits = nn.Parameter(torch.randn(24, 11).to(device))
    target = torch.randint(11, (24,)).to(device)
    return _train([logits], lambda: loss(logits, target))


def regularizer_step(name: str, device: str) -> Step:
    module = Regularized(name, 6).to(device)
    before = nn.Conv2d(3, 6, 3, padding=1).to(device)
    images = torch.randn(8, 3, 10, 10).to(device)
    parameters = [*before.parameters(), *module.layer.parameters()]
    return _train(
        parameters, lambda: module(before(images)).square().mean() + module.layer.penalty()
    )


def network_step(device: str) -> Step:
    network = nn.Sequential(GapCNN((1, 12, 12), channels=(6, 8, 8, 10)), nn.Linear(10, 5))
    insert(network, "disout", where="0.layers.conv[34]", p=0.1, block_size=2)
    model = attach(network, "dropmax", layer="1").to(device)
    images = torch.randn(16, 1, 12, 12).to(device)
    target = torch.randint(5, (16,)).to(device)
    return _train(list(model.parameters()), lambda: model(images, target=target).loss)


def waits(make: Make, device: str) -> Row:
    """Name every line that waits for the device in one step."""
    torch.manual_seed(0)
    step = make(device)
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            step()
        torch.cuda.set_sync_debug_mode("error")
        step()
    except RuntimeError as error:
        row = failure(error)
        row["status"] = "wrong" if "synchroniz" in str(error) else "error"
    else:
        row = {"status": "ok"}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    lines = Counter(
        ours_at(w.filename, w.lineno) or f"{w.filename}:{w.lineno}"
        for w in caught
        if "synchroniz" in str(w.message)
    )
    return row | {"waits": dict(lines)}


def deterministic(make: Make, device: str) -> Row:
    """Training asks torch for deterministic algorithms; an operation without one raises."""
    torch.manual_seed(0)
    step = make(device)
    mode = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        step()
    finally:
        torch.use_deterministic_algorithms(mode)
    return {"status": "ok"}
