"""The last feature map of a network and the linear layer that reads its mean over the cells.

What a forward pass shows is believed only if it gives the network's output.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._inputs import evaluating
from lastlayer.heads import Classifier
from lastlayer.heads.interface import full_precision
from lastlayer.heads.linear import apply_linear, call_hooks, read_weight
from lastlayer.information.forward_trace import ForwardTrace, Maps

_WANTED = "class maps need a network that ends in average pooling and one linear layer"


class Readout(NamedTuple):
    """A batch at a network's end.

    Attributes:
        features: (N, C, h, w) last feature map.
        weight: (K, C) class weights.
        bias: (K,) or None.
        logits: (N, K) the map's mean times the weights, plus the bias; float32 at least.
        output: (N, K) what the network returned.
    """

    features: Tensor
    weight: Tensor
    bias: Tensor | None
    logits: Tensor
    output: Tensor


@torch.no_grad()
def read_out(model: nn.Module, images: Tensor, layer: str | None = None) -> Readout:
    """Pass ``images`` through ``model`` once, in evaluation mode, and trace its end.

    The network ends in average pooling and one linear layer or 1x1 convolution (logits,
    log-probabilities or probabilities out), or is a :class:`lastlayer.Classifier` whose backbone
    ends in average pooling. ``layer`` is the dotted name of the module whose output is the last
    map; found if None.

    Raises:
        ValueError: if the output is not the map's mean times the weights, the message says what
            was found instead; if ``layer`` names no module; if a logit is not finite.
        TypeError: if the network does not return a tensor, or ``head.classifier`` is adapted, so
            that its weights do not tell its output.
    """
    model = getattr(model, "_orig_mod", model)  # what a compiled network was made of
    with evaluating(model):
        with ForwardTrace() as trace, _pinned(model, layer, trace):
            output = model.features(images) if isinstance(model, Classifier) else model(images)
        if isinstance(model, Classifier):
            readout = _of_classifier(model, output, trace.maps)
        else:
            readout = _of_network(model, _output_tensor(output), trace)
    finite = readout.logits.isfinite().all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ValueError(f"logits must be finite; those of example {row} hold NaN or infinity")
    return readout


@contextmanager
def _pinned(model: nn.Module, layer: str | None, trace: ForwardTrace) -> Iterator[None]:
    """Have the trace take the output of ``layer`` for the last map."""
    if layer is None:
        yield
        return
    modules = dict(model.named_modules())
    if layer not in modules:
        near = difflib.get_close_matches(layer, modules, n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise ValueError(f"layer {layer!r} is no module of {type(model).__name__}{hint}")

    def take(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.dim() != 4:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layer {layer!r} must return a map (N, C, h, w); it returns {found}")
        trace.pin(output)

    handle = modules[layer].register_forward_hook(take)
    try:
        yield
    finally:
        handle.remove()


def _of_classifier(model: Classifier, pooled: Tensor, maps: Maps) -> Readout:
    """Believe a map whose mean is what the head was given."""
    classifier = model.head.classifier
    for features in maps.candidates():
        mean = _mean(features)
        if mean.shape == pooled.shape and _same(
            mean, pooled, mean.abs(), _precision(pooled, features)
        ):
            output = model.head.log_prob(pooled)  # renews weights that pruning keeps in a hook
            weight, bias = read_weight(classifier, mean.dtype)
            with full_precision(mean):
                logits = F.linear(mean, weight, bias)
                _refuse_hooks(classifier, mean, logits)
            return Readout(features, weight, bias, logits, output)
    raise ValueError(_refusal(maps, pooled, "the head"))


def _of_network(model: nn.Module, output: Tensor, trace: ForwardTrace) -> Readout:
    """Believe a map whose mean, through the last linear layer, is what the network returned."""
    call = trace.linear
    if call is None:
        raise ValueError(
            f"{_WANTED}; {type(model).__name__} calls no linear layer and no 1x1 convolution"
        )
    maps = trace.maps if trace.pinned else call.maps
    for features in maps.candidates():
        mean = _mean(features)
        if mean.shape[1] != call.weight.shape[1]:
            continue
        weight = call.weight.to(mean.dtype)
        bias = None if call.bias is None else call.bias.to(mean.dtype)
        with full_precision(mean):
            logits = F.linear(mean, weight, bias)
            scale = F.linear(mean.abs(), weight.abs(), None if bias is None else bias.abs())
        precision = _precision(output, features, call.operand)
        if logits.shape == output.shape and _is_output(logits, output, scale, precision):
            return Readout(features, call.weight, call.bias, logits, output)
    name = _name(model, call.weight)
    what = f"{name} ({call.weight.shape[0]} x {call.weight.shape[1]})"
    raise ValueError(_refusal(maps, call.operand, what))


def _is_output(logits: Tensor, output: Tensor, scale: Tensor, precision: float) -> bool:
    """Whether a network returned these logits, or their softmax or its logarithm."""
    probabilities = logits.softmax(1)
    ways = ((logits, scale), (logits.log_softmax(1), scale), (probabilities, probabilities))
    return any(_same(found, output, size, precision) for found, size in ways)


def _same(found: Tensor, expected: Tensor, scale: Tensor, precision: float) -> bool:
    """Whether two results agree up to rounding; what is NaN in both agrees."""
    bound = precision * scale.nan_to_num().amax().clamp_min(1e-30)
    return torch.allclose(found, expected.to(found.dtype), precision, float(bound), equal_nan=True)


def _precision(*tensors: Tensor) -> float:
    """Square root of the coarsest rounding: far above it, far below another computation."""
    return math.sqrt(max(torch.finfo(tensor.dtype).eps for tensor in tensors))


def _mean(features: Tensor) -> Tensor:
    dtype = torch.promote_types(features.dtype, torch.float32)
    return features.mean((2, 3), dtype=dtype)


def _refuse_hooks(classifier: nn.Linear, mean: Tensor, logits: Tensor) -> None:
    """Raise ``ValueError`` if hooks make more of the layer than its product."""
    if not (hooks := call_hooks(classifier)):
        return
    if not _same(apply_linear(classifier, mean), logits, logits.abs(), _precision(logits)):
        raise ValueError(
            f"{_WANTED}; the hooks of head.classifier ({', '.join(hooks)}) change its output: "
            "remove them first"
        )


def _output_tensor(output: object) -> Tensor:
    output = getattr(output, "logits", output)  # transformers' models return an object
    if not isinstance(output, Tensor):
        raise TypeError(f"model must return a tensor of logits; got {type(output).__name__}")
    if output.dim() == 4 and output.shape[2:] == (1, 1):  # a 1x1 convolution that stays a map
        output = output[:, :, 0, 0]
    return output


def _name(model: nn.Module, weight: Tensor) -> str:
    """Name the layer of a weight, which for a convolution is a view of its parameter."""
    for name, parameter in model.named_parameters():
        if parameter.data_ptr() == weight.data_ptr():
            return f"the last linear layer {name.rpartition('.')[0]!r}"
    return "the last linear layer"


def _refusal(maps: Maps, operand: Tensor, reader: str) -> str:
    """Say what was found instead of the mean of a map."""
    if not maps.candidates():
        return f"{_WANTED}; no map (N, C, h, w) was seen before {reader}"
    features = maps.candidates()[0]
    shape = tuple(features.shape)
    if operand.dim() == 4 and operand.shape[2:].numel() > 1:
        return (
            f"{_WANTED}; {reader} is a convolution of the map {shape}, but the output is not the "
            "mean of its result over the cells"
        )
    given = operand.reshape(len(operand), -1)
    ways = {
        "the maximum over its cells (max pooling)": features.amax((2, 3)),
        "all its cells, flattened": features.flatten(1),
        "its mean, but the output is more than that layer's result": features.mean((2, 3)),
    }
    for way, values in ways.items():
        close = values.shape == given.shape and torch.allclose(
            values.float(), given.float(), 1e-3, 1e-5, equal_nan=True
        )
        if close:
            return f"{_WANTED}; {reader} is given the last map {shape} as {way}"
    return (
        f"{_WANTED}; what {reader} is given, {tuple(operand.shape)}, is not the mean of the last "
        f"map {shape} (name the map's module with layer=... if it is another one)"
    )
