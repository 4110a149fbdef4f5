"""One computation in two places, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gpu_parts.bench import Row
from gpu_parts.draws import SharedDraws

#: ||out - ref|| / ||ref||: float32 without TF32; bfloat16 has 8 bits, float16 has 11.
FLOAT64, FLOAT32, BFLOAT16, FLOAT16 = 1e-9, 1e-4, 3e-2, 1e-2
#: A gradient is measured against its own norm, or this share of the norm of all of them.
SMALL_GRADIENT = 1e-3


class Variant(NamedTuple):
    """In which precision something is computed.

    Attributes:
        name: of the variant.
        parameters: dtype of the parameters.
        features: dtype of the inputs.
        autocast: whether autocast to bfloat16 is on.
        bound: on the relative error of what is returned.
        gradient_bound: on that of gradients, which have the dtype of what they belong to.
    """

    name: str
    parameters: torch.dtype
    features: torch.dtype
    autocast: bool
    bound: float
    gradient_bound: float


SINGLE, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
VARIANTS = (
    Variant("float64", torch.float64, torch.float64, False, FLOAT64, FLOAT64),
    Variant("float32", SINGLE, SINGLE, False, FLOAT32, FLOAT32),
    # Heads and losses compute in float32 under autocast and with half-precision inputs.
    Variant("autocast", SINGLE, SINGLE, True, FLOAT32, FLOAT32),
    Variant("bf16 inputs", SINGLE, BRAIN, True, FLOAT32, BFLOAT16),
    Variant("bf16", BRAIN, BRAIN, False, BFLOAT16, BFLOAT16),
    Variant("fp16", HALF, HALF, False, FLOAT16, FLOAT16),
)


class Place(NamedTuple):
    """Where and in which dtype a computation runs; its numbers are those of the variant.

    Attributes:
        device: of all tensors.
        variant: whose rounding everything has had.
        reference: whether to compute in float64 from there on.
    """

    device: str
    variant: Variant
    reference: bool

    def inputs(self, values: Tensor) -> Tensor:
        """Return floating-point inputs, or class indices, as this place has them."""
        if not values.is_floating_point():
            return values.to(self.device)
        rounded = values.to(self.variant.features)
        return rounded.to(self.device, torch.float64 if self.reference else None)

    def module(self, module: nn.Module) -> nn.Module:
        """Return a module as this place has it."""
        rounded = module.to(self.variant.parameters)
        return rounded.to(self.device, torch.float64 if self.reference else None)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context to compute in."""
        if self.reference or not self.variant.autocast:
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16)


class Values(NamedTuple):
    """What a computation gave: values, gradients, and what must be equal to the last bit."""

    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor | None] = {}
    exact: Mapping[str, Tensor] = {}


def relative_error(reference: Tensor, found: Tensor, *, floor: float = 0.0) -> float:
    """Return ||found - reference|| / ||reference||; infinity for NaN and for another shape.

    Infinite entries must be the same ones.
    """
    reference, found = (x.detach().double().cpu() for x in (reference, found))
    if reference.shape != found.shape:
        return math.inf
    finite = reference.isfinite()
    if not torch.equal(reference[~finite], found[~finite]):
        return math.inf
    distance = float((found[finite] - reference[finite]).norm())
    norm = max(float(reference[finite].norm()), floor)
    error = distance / norm if norm > 0 else distance
    return error if math.isfinite(error) else math.inf


def compare(
    compute: Callable[[Place], Values], variant: Variant, device: str, *, seed: int = 0
) -> Row:
    """Compute on the device and in float64 on the CPU with the same draws; return the errors."""
    results = []
    for place in (Place("cpu", variant, True), Place(device, variant, False)):
        with SharedDraws(seed):
            results.append(compute(place))
    reference, found = results
    errors = {k: relative_error(v, found.values[k]) for k, v in reference.values.items()}
    gradients = _gradient_errors(reference.gradients, found.gradients)
    unequal = [
        k for k, v in reference.exact.items() if not torch.equal(v.cpu(), found.exact[k].cpu())
    ]
    worst_value, worst_gradient = _worst(errors), _worst(gradients)
    good = (
        not unequal
        and worst_value[1] <= variant.bound
        and worst_gradient[1] <= variant.gradient_bound
    )
    return {
        "status": "ok" if good else "wrong",
        "error": worst_value[1],
        "error_of": worst_value[0],
        "bound": variant.bound,
        "gradient_error": worst_gradient[1],
        "gradient_error_of": worst_gradient[0],
        "gradient_bound": variant.gradient_bound,
        **({"unequal": unequal} if unequal else {}),
    }


def _gradient_errors(
    reference: Mapping[str, Tensor | None], found: Mapping[str, Tensor | None]
) -> dict[str, float]:
    there = {name: value for name, value in reference.items() if value is not None}
    total = math.sqrt(sum(float(value.double().square().sum()) for value in there.values()))
    errors = {}
    for name, value in reference.items():
        other = found[name]
        if value is None or other is None:
            errors[name] = 0.0 if value is other else math.inf
        else:
            errors[name] = relative_error(value, other, floor=SMALL_GRADIENT * total)
    return errors


def _worst(errors: Mapping[str, float]) -> tuple[str, float]:
    name = max(errors, key=lambda key: errors[key], default="")
    return name, errors.get(name, 0.0)
