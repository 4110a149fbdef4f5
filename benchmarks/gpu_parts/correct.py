"""Part ``correct``: the device against float64 on the CPU, from the same draws."""

from __future__ import annotations

import copy
import io
from functools import partial

import torch
from torch import Tensor

from gpu_parts import correct_others
from gpu_parts.bench import Bench, Row
from gpu_parts.cases import (
    HEAD_NAMES,
    HEAD_OPTIONS,
    REGULARIZER_OPTIONS,
    Regularized,
    loss_of,
    make_head,
    make_losses,
)
from gpu_parts.places import VARIANTS, Place, Values, compare
from lastlayer.heads import Head


def run(bench: Bench) -> None:
    """Heads, losses and regularizers in every precision, then what else takes a device."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    variants = VARIANTS[1:4] if bench.dry else VARIANTS
    names = bench.wanted([*HEAD_NAMES, *HEAD_OPTIONS])
    rows, features, classes = (12, 6, 5) if bench.dry else (96, 64, 37)
    for name in names:
        for variant in variants:
            compute = partial(head_values, name, rows, features, classes)
            bench.case(
                f"head {name}, {variant.name}",
                partial(compare, compute, variant, bench.device),
            )
        bench.case(f"head {name}, moves", partial(moves, name, features, classes, bench.device))
    for name in make_losses(classes):
        for variant in variants:
            compute = partial(loss_values, name, rows, classes)
            bench.case(
                f"loss {name}, {variant.name}",
                partial(compare, compute, variant, bench.device),
            )
    for name in REGULARIZER_OPTIONS:
        for variant in VARIANTS if not bench.dry else VARIANTS[1:2]:
            if variant.autocast:
                continue  # they draw and multiply: nothing that autocast would change
            compute = partial(regularizer_values, name)
            bench.case(
                f"regularizer {name}, {variant.name}",
                partial(compare, compute, variant, bench.device),
            )
        bench.case(
            f"regularizer {name}, generator",
            partial(regularizer_generator, name, bench.device),
        )
    correct_others.run(bench)


def head_values(name: str, rows: int, in_features: int, num_classes: int, place: Place) -> Values:
    """A training step of a head with two ignored rows, then its prediction."""
    head = make_head(name, in_features, num_classes, dtype=torch.float64)
    head = place.module(head)
    assert isinstance(head, Head)
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(rows, in_features, generator=generator, dtype=torch.float64)
    target = torch.randint(num_classes, (rows,), generator=generator)
    target[:2] = -100
    features = place.inputs(values).requires_grad_()
    parameters = dict(head.named_parameters())
    with place.autocast():
        out = head(features, place.inputs(target))
    gradients = torch.autograd.grad(out.loss, [features, *parameters.values()], allow_unused=True)
    head.eval()
    with place.autocast():
        log_prob = head(features)
    found = {"loss": out.loss, **{f"term {k}": v for k, v in out.terms.items()}}
    found["probabilities"] = log_prob.exp()
    if bool(log_prob.isfinite().all()):
        found["log_prob"] = log_prob
    counted = {k: v for k, v in head.named_buffers() if not v.is_floating_point()}
    return Values(found, dict(zip(["features", *parameters], gradients, strict=True)), counted)


def loss_values(name: str, rows: int, num_classes: int, place: Place) -> Values:
    """A loss on logits of a batch with two ignored rows, every reduction."""
    loss = place.module(make_losses(num_classes)[name])
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(rows, num_classes, generator=generator, dtype=torch.float64)
    target = torch.randint(num_classes, (rows,), generator=generator)
    target[:2] = -100
    scores = place.inputs(0.3 * logits).requires_grad_()
    found, gradients = {}, {}
    for loss.reduction in ("mean", "sum", "none"):  # type: ignore[assignment]
        with place.autocast():
            value = loss(scores, place.inputs(target))
        found[str(loss.reduction)] = value
        (gradients[str(loss.reduction)],) = torch.autograd.grad(value.sum(), [scores])
    return Values(found, gradients)


def regularizer_values(name: str, place: Place) -> Values:
    """A regularizer on maps: output, penalty, gradients; and what it does in evaluation."""
    module = place.module(Regularized(name, 6))
    generator = torch.Generator().manual_seed(5)
    maps = torch.randn(16, 6, 10, 9, generator=generator, dtype=torch.float64)
    upstream = place.inputs(torch.randn(maps.shape, generator=generator, dtype=torch.float64))
    features = place.inputs(maps).requires_grad_()
    layer = module.layer
    parameters = dict(layer.named_parameters())
    out = layer(features)
    total = (out.double() * upstream.double()).sum()
    penalty = layer.penalty()
    gradients = torch.autograd.grad(
        total + penalty, [features, *parameters.values()], allow_unused=True
    )
    evaluated = module.eval()(features)
    found = {"output": out, "penalty": penalty, "evaluated": evaluated}
    return Values(found, dict(zip(["features", *parameters], gradients, strict=True)))


def moves(name: str, in_features: int, num_classes: int, device: str) -> Row:
    """A head moved to the device, built there, and filled from a file: one and the same."""
    source = make_head(name, in_features, num_classes)
    built = make_head(name, in_features, num_classes, device=device)
    wrong = [k for k, v in built.state_dict().items() if v.device.type != device]
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    built.load_state_dict(torch.load(file, map_location=device, weights_only=True))
    moved = copy.deepcopy(source).to(device)
    wrong += [k for k, v in moved.state_dict().items() if v.device.type != device]
    features = torch.randn(9, in_features, generator=torch.Generator().manual_seed(1)).to(device)
    target = torch.arange(9, device=device) % num_classes
    losses: list[Tensor] = []
    for head in (moved, built):
        own = torch.Generator(device).manual_seed(5)
        losses.append(loss_of(head, features, target, generator=own).detach())
    again = torch.Generator(device).manual_seed(6)
    other = loss_of(moved, features, target, generator=again).detach()
    back = copy.deepcopy(moved).cpu().state_dict()
    same_state = all(torch.equal(back[k], v) for k, v in source.state_dict().items())
    checks = {
        "another loss of the same head and seed": not torch.equal(*losses),
        "the seed changes nothing": moved.stochastic and torch.equal(other, losses[0]),
        "another state after the way back": not same_state,
    }
    problems = [f"{k} is on another device" for k in wrong]
    problems += [problem for problem, is_there in checks.items() if is_there]
    return {"status": "wrong" if problems else "ok", "message": "; ".join(problems)}


def regularizer_generator(name: str, device: str) -> Row:
    """A regularizer draws from a generator of its own on the device, about as often as it says."""
    maps = torch.ones(64, 6, 24, 24, device=device) + torch.rand(64, 6, 24, 24).to(device)
    outputs = []
    for seed in (1, 1, 2):
        layer = Regularized(name, 6).to(device).layer
        layer.generator = torch.Generator(device).manual_seed(seed)
        outputs.append(layer(maps).detach())
    changed = float((outputs[0] == 0).float().mean())
    problems = []
    if not torch.equal(outputs[0], outputs[1]):
        problems.append("the same seed gave another output")
    if torch.equal(outputs[0], outputs[2]):
        problems.append("another seed gave the same output")
    expected = SHARE_OF_ZEROS.get(name)
    # Of the fewest independent draws, 64 examples, five standard deviations are 0.31.
    if expected is not None and abs(changed - expected) > (0.31 if name == "drop-path" else 0.05):
        problems.append(f"a share of {changed:.3f} is zero, not {expected}")
    row: Row = {"status": "wrong" if problems else "ok", "message": "; ".join(problems)}
    return row | {"zero_share": changed}


SHARE_OF_ZEROS = {
    "dropout": 0.4,
    "spatial-dropout": 0.4,
    "drop-path": 0.4,
    "drop-block": 0.2,
    "drop-block, shared": 0.2,
}
