"""Step time of every head relative to ``Linear`` and ``cross_entropy``: forward and backward.

Run ``python benchmarks/heads.py``. Every round times all heads in turn; the figures are medians
over the rounds of the time and of the ratio within a round. ``three linears`` is the floor of
DropMax: its three matrix products, forward and backward, and nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from paired import RESULTS, Call, paired_medians, print_table, write_results
from torch import Tensor, nn

from lastlayer.heads import HEADS, HeadOutput, build_head, takes_class_counts

BATCH, FEATURES = 256, 512


class Plain(nn.Module):
    """What a user has before: a linear layer and cross-entropy."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, num_classes)

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(self.linear(features), target)


class ThreeLinears(nn.Module):
    """The matrix products of DropMax, without its element-wise work."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(FEATURES, num_classes) for _ in range(3))
        self.register_buffer("gradient", torch.randn(BATCH, num_classes))

    def step(self, features: Tensor) -> None:
        outputs = [linear(features) for linear in self.linears]
        inputs = [features, *self.parameters()]
        torch.autograd.grad(outputs, inputs, [self.gradient] * 3)


class Loss(nn.Module):
    """A head as a module that returns its loss alone, which compiles as a whole."""

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        counts = {"class_counts": [1] * num_classes} if takes_class_counts(name) else {}
        self.head = build_head(name, FEATURES, num_classes, **counts)

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        out = self.head(features, target)
        if not isinstance(out, HeadOutput):
            raise TypeError("a head in training returns its loss")
        return out.loss


def step(module: nn.Module, features: Tensor, target: Tensor) -> Call:
    inputs = [features, *module.parameters()]

    def call() -> None:
        torch.autograd.grad(module(features, target), inputs)

    return call


def calls(num_classes: int, names: list[str], *, compiled: bool, device: str) -> dict[str, Call]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(BATCH, FEATURES, generator=generator).to(device).requires_grad_()
    target = torch.randint(num_classes, (BATCH,), generator=generator).to(device)
    floor = ThreeLinears(num_classes).to(device)
    table: dict[str, Call] = {
        "Linear + cross_entropy": step(Plain(num_classes).to(device), features, target),
        "three linears": lambda: floor.step(features),
    }
    for name in names:
        module: nn.Module = Loss(name, num_classes).to(device)
        if compiled:
            module = torch.compile(module, dynamic=False)  # type: ignore[assignment]
        table[name] = step(module, features, target)
    if device != "cpu":
        return {name: _synchronised(call) for name, call in table.items()}
    return table


def _synchronised(call: Call) -> Call:
    def wait() -> None:
        call()
        torch.cuda.synchronize()

    return wait


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--heads", default=",".join(HEADS.names()))
    parser.add_argument("--classes", default="10,100,1000,10000")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    mode = "compiled" if arguments.compiled else "eager"
    if arguments.compiled:
        # All heads share one forward function; beyond the limit the compiler leaves them eager.
        torch._dynamo.config.recompile_limit = 4 * len(HEADS.names())
        torch._dynamo.config.fail_on_recompile_limit_hit = True
    results = {}
    for num_classes in map(int, arguments.classes.split(",")):
        torch.compiler.reset()
        table = calls(
            num_classes,
            arguments.heads.split(","),
            compiled=arguments.compiled,
            device=arguments.device,
        )
        results[f"K = {num_classes}"] = paired_medians(
            table, rounds=arguments.rounds, minimum_seconds=0.02
        )
    print_table(f"{mode}: time relative to Linear + cross_entropy (milliseconds)", results)
    output = arguments.output or RESULTS / f"heads-{arguments.device}-{mode}.json"
    write_results(output, results, batch=BATCH, features=FEATURES, mode=mode)


if __name__ == "__main__":
    main()
