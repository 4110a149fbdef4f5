"""Part ``steps``: time and memory of a step of every head, relative to a linear layer's."""

from __future__ import annotations

import gc
import importlib
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from paired import Call, paired_medians, seconds_of
from torch import Tensor, nn

from gpu_parts.bench import Bench, Row
from gpu_parts.cases import HEAD_NAMES, HeadLoss, PlainLoss, make_head

BASE = "Linear + cross_entropy"
MODES = ("float32", "tf32", "bf16 autocast")
#: First compiled: what is used most, and what differs most from the baseline.
FIRST = ("softmax", "dropmax", "sparsemax", "balanced-softmax", "dropmax-mixed", "entmax15")
#: The threshold is looked at as it converges, or takes all the steps that may be needed.
ALL_STEPS = ", all steps"
SLOW = 0.3  # seconds of a step beyond which it is timed once, apart from the others


def run(bench: Bench) -> None:
    """Ceilings first, then all heads eager, every size and precision; then compiled ones."""
    batch, features = (8, 16) if bench.dry else (256, 512)
    sizes = (10, 100) if bench.dry else (1000, 10, 10_000, 100_000)
    modes = MODES[:1] if bench.device == "cpu" else MODES
    bench.facts |= {"batch": batch, "features": features}
    bench.case("ceilings", partial(ceilings, bench))
    names = bench.wanted(HEAD_NAMES)
    for num_classes in sizes:
        for mode in modes:
            with _precision(mode):
                table = _Table(bench, mode, batch, features, num_classes)
                more = [n + ALL_STEPS for n in ("sparsemax", "entmax15") if n in names]
                table.measure([BASE, *names, *more])
    if bench.dry:
        bench.note("compiled steps", "left out: compiling takes longer than a dry run may")
        return
    order = [*(n for n in FIRST if n in names), *(n for n in names if n not in FIRST)]
    for num_classes in (1000, 10):
        options = {"mode": "reduce-overhead"} if num_classes == 10 else {}
        with _precision("float32"):
            table = _Table(bench, "float32", batch, features, num_classes, compiled=options)
            for name in order:  # one by one: each is there when the time is up
                if bench.left() < 25:
                    bench.case(table.title(name), dict, needs=bench.seconds)
                    continue
                table.measure([BASE, name])


@contextmanager
def _precision(mode: str) -> Iterator[None]:
    kept = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = kept


@contextmanager
def _without_looks() -> Iterator[None]:
    entmax = importlib.import_module("lastlayer.functional.entmax")
    kept = entmax.can_look
    entmax.can_look = lambda *tensors, wait=False: False
    try:
        yield
    finally:
        entmax.can_look = kept


def event_seconds(call: Call, repeats: int) -> float:
    """Return the seconds of one of several calls by the device's own clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end) / repeats


def ceilings(bench: Bench) -> Row:
    """Bytes a second of a large copy, and operations a second of large matrix products."""
    side, size = (256, 2**16) if bench.dry else (8192, 2**28)
    timer = seconds_of if bench.device == "cpu" else event_seconds
    source = torch.randn(size, device=bench.device)
    found = {"copy": 2 * 4 * size / _median(timer, partial(torch.empty_like(source).copy_, source))}
    del source
    dtypes = {"float32": torch.float32, "tf32": torch.float32, "bf16 autocast": torch.bfloat16}
    for mode in MODES[:1] if bench.device == "cpu" else MODES:
        a, b = (torch.randn(side, side, device=bench.device).to(dtypes[mode]) for _ in range(2))
        out = torch.empty_like(a)
        with _precision(mode):
            seconds = _median(timer, partial(torch.mm, a, b, out=out))
        found[mode] = 2 * side**3 / seconds
    bench.facts["ceilings"] = found
    shown = {"bytes_per_second": found["copy"]}
    return shown | {f"flops {k}": v for k, v in found.items() if k != "copy"}


def _median(timer: Callable[[Call, int], float], call: Call) -> float:
    timer(call, 3)
    return statistics.median(timer(call, 1) for _ in range(9))


class _Table:
    """Steps of several heads at one size, in one precision."""

    def __init__(
        self,
        bench: Bench,
        mode: str,
        batch: int,
        features: int,
        num_classes: int,
        compiled: dict[str, str] | None = None,
    ) -> None:
        self.bench, self.mode, self.num_classes, self.compiled = bench, mode, num_classes, compiled
        device = bench.device
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(batch, features, generator=generator).to(device)
        self.features.requires_grad_()
        self.target = torch.randint(num_classes, (batch,), generator=generator).to(device)
        self.has_base = False
        self.timer = seconds_of if device == "cpu" else event_seconds

    def title(self, name: str) -> str:
        """Return the name of a head's row."""
        how = "eager" if self.compiled is None else "compiled"
        return f"{name}, K = {self.num_classes}, {self.mode}, {how}"

    def measure(self, names: list[str]) -> None:
        """Try each alone, for its memory; time side by side what came through."""
        calls: dict[str, Call] = {}
        rows: dict[str, Row] = {}
        torch.compiler.reset()  # all heads share one forward: else the compiler gives up
        for name in names:
            if self.bench.left() < 10:
                self.bench.case(self.title(name), dict, needs=self.bench.seconds)
                continue
            row = self.bench.case(self.title(name), partial(self._first, name, calls))
            if name == BASE and self.compiled is not None:
                if self.has_base:
                    self.bench.rows.pop()
                self.has_base = True
            if row["status"] == "ok":
                rows[name] = row
                if row["milliseconds"] > 1e3 * SLOW:
                    del calls[name]
        if BASE in calls and self.bench.left() > 5:
            found = paired_medians(
                calls,
                rounds=5 if self.bench.dry else 9,
                minimum_seconds=0.001 if self.bench.dry else 0.004,
                timer=self.timer,
            )
            for name, times in found.items():
                rows[name] |= times
        for row in rows.values():
            self._shares(row)
        self.bench.write()
        calls.clear()
        gc.collect()
        if self.bench.device == "cuda":
            torch.cuda.empty_cache()

    def _first(self, name: str, calls: dict[str, Call]) -> Row:
        """Build a module, take its first steps, and return memory and a first time."""
        width, device = self.features.shape[1], self.bench.device
        module: nn.Module
        if name == BASE:
            module = PlainLoss(width, self.num_classes, device)
        else:
            head = make_head(name.removesuffix(ALL_STEPS), width, self.num_classes, device=device)
            module = HeadLoss(head)
        parameters = sum(p.numel() for p in module.parameters())
        call = self._call(module, looks=not name.endswith(ALL_STEPS))
        call()
        call()
        self.bench.synchronize()
        memory: Row = {}
        if device == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            call()
            memory["peak_bytes"] = torch.cuda.max_memory_allocated() - before
        seconds = self.timer(call, 1)
        calls[name] = call
        return {"milliseconds": 1e3 * seconds, "parameters": parameters, **memory}

    def _call(self, module: nn.Module, *, looks: bool) -> Call:
        inputs = [self.features, *module.parameters()]
        if self.compiled is not None:
            module = torch.compile(module, dynamic=False, **self.compiled)  # type: ignore[assignment]
        autocast = self.mode == "bf16 autocast"

        def call() -> tuple[Tensor, ...]:
            with (
                torch.autocast(self.bench.device, dtype=torch.bfloat16, enabled=autocast),
                nullcontext() if looks else _without_looks(),
            ):
                loss = module(self.features, self.target)
            return torch.autograd.grad(loss, inputs)

        return call

    def _shares(self, row: Row) -> None:
        """Add the share of the time that matrix products, or reading and writing, must take.

        Products are 6 N D K operations for every K x D weight matrix, forward and backward, at the
        rate of the mode; the bytes are features and weights read twice, their gradients written.
        """
        limits = self.bench.facts.get("ceilings")
        if not limits:
            return
        batch, width = self.features.shape
        seconds = 1e-3 * row["milliseconds"]
        row["matmul_share"] = 6 * batch * row["parameters"] / limits[self.mode] / seconds
        moved = 4 * 3 * (row["parameters"] + batch * width)
        row["bandwidth_share"] = moved / limits["copy"] / seconds
