"""What is tried on each network, except training on several processes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreign.inserted import inserted
from foreign.library import attached, classifier, maps_of, report_of, report_of_features
from foreign.networks import NUM_CLASSES, Inputs, Network, logits_of, loss_of
from foreign.outcome import Outcome, WrongError, expect_finite, expect_same, outcome_of

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def labels(count: int) -> Tensor:
    """Labels of a batch."""
    return torch.arange(count) % NUM_CLASSES


def attach_softmax(network: Network) -> Outcome:
    """Predictions as before, a loss, and a gradient wherever there was one."""
    inputs, target = network.inputs(4), labels(4)
    model, how = attached(network)
    _expect_predictions_kept(network, model, inputs)
    before = _with_gradient(network.build(), lambda net: loss_of(inputs.to(net), target))
    after = _with_gradient(model, lambda net: inputs.to(net, target=target).loss)
    replaced = f"{network.layer}."
    lost = [n for n in before if f"backbone.{n}" not in after and not n.startswith(replaced)]
    if lost:
        raise WrongError(f"{len(lost)} parameters lost their gradient, the first {lost[0]}")
    return Outcome("works", how)


def attach_dropmax(network: Network) -> Outcome:
    """Predictions as before, a loss with a gradient."""
    inputs = network.inputs(4)
    model, how = attached(network, "dropmax")
    loss = inputs.to(model.train(), target=labels(4)).loss
    loss.backward()
    expect_finite("loss", loss)
    model, how = attached(network, "dropmax")
    _expect_predictions_kept(network, model, inputs)
    return Outcome("works", how)


@torch.no_grad()
def _expect_predictions_kept(network: Network, model: nn.Module, inputs: Inputs) -> None:
    bare = F.log_softmax(logits_of(inputs.to(network.build())), -1)
    expect_same("log-probabilities", inputs.to(model.eval()), bare)


def _with_gradient(model: nn.Module, run: Callable[[nn.Module], Tensor]) -> set[str]:
    loss = run(model.train())
    expect_finite("loss", loss)
    loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None}


def class_maps(network: Network) -> Outcome:
    """The mean of a class's map is its logit but for the bias, without and with a head."""
    if not network.maps:
        return Outcome("not asked", "no images")
    images, bare, model = network.inputs(4).args[0], network.build(), classifier(network)
    with torch.no_grad():
        logits, log_prob = logits_of(bare(images)).flatten(1), model(images)
    every = torch.arange(NUM_CLASSES).expand(4, -1)
    if logits.shape[1] == NUM_CLASSES:
        _expect_means(maps_of(bare, images, every), logits)
    maps = maps_of(model, images, every)
    # Log-probabilities are the logits but for one number of each image.
    _expect_means(maps - maps[:, :1], log_prob - log_prob[:, :1])
    return Outcome("works", f"{maps.shape[-2]} x {maps.shape[-1]}")


def _expect_means(maps: Tensor, logits: Tensor) -> None:
    """The difference to the logits is the bias, the same for every image."""
    difference = maps.mean((-2, -1)) - logits
    expect_same("mean of the maps", difference, difference[:1].expand_as(difference))


@torch.no_grad()
def feature_report(network: Network) -> Outcome:
    """Scores of the layers' outputs, pooled by hand over all but examples and channels."""
    inputs, target = network.inputs(16), labels(16) % 3
    scores = report_of(network.build(), inputs, target).scores
    features = _pooled_by_hand(network.build(), list(scores), inputs)
    wanted = report_of_features(features, target).scores
    for name, score in scores.items():
        if score.num_features != wanted[name].num_features:
            true = wanted[name].num_features
            raise WrongError(f"{score.num_features} features of {name}, which has {true}")
        if abs(score.shrunk - wanted[name].shrunk) > 1e-3:
            raise WrongError(f"score of {name}: {score.shrunk:.3g}, not {wanted[name].shrunk:.3g}")
    return Outcome("works", f"{len(scores)} layers")


def _pooled_by_hand(net: nn.Module, names: list[str], inputs: Inputs) -> dict[str, Tensor]:
    """Channels are dimension 1 of a convolution's output and the last of any other's."""
    found: dict[str, Tensor] = {}

    def hear(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            if isinstance(module, _CONVOLUTIONS):
                output = output.movedim(1, -1)
            rows = output.reshape(16, -1, output.shape[-1])
            found[name] = rows.double().mean(1)

        return hook

    for name in names:
        net.get_submodule(name).register_forward_hook(hear(name))
    inputs.to(net)
    return found


class _Logits(nn.Module):
    """A bare network that returns a tensor, whatever it returned."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return logits_of(self.network(*args, **kwargs))


def _or_network_cannot(
    network: Network, attempt: Callable[[nn.Module, Network], Outcome]
) -> Outcome:
    """Try it with a head; where that fails, whether the network alone could."""
    model = classifier(network)
    try:
        return attempt(model.eval(), network)
    except Exception as error:
        outcome = outcome_of(error)
    try:
        attempt(_Logits(network.build()).eval(), network)
    except Exception as error:
        return Outcome("network cannot", outcome_of(error).note)
    return outcome


@torch.no_grad()
def compiled(network: Network) -> Outcome:
    """``torch.compile`` for batches of any size, in one graph if possible; tried with two."""

    def attempt(model: nn.Module, network: Network, fullgraph: bool = True) -> Outcome:
        torch._dynamo.reset()
        fast = torch.compile(model, backend="aot_eager", fullgraph=fullgraph)
        for count in (4, 3):
            inputs = network.inputs(count)
            for tensor in inputs.tensors():
                torch._dynamo.mark_dynamic(tensor, 0)
            expect_same(f"batch of {count}", inputs.to(fast), inputs.to(model))
        return Outcome("works", "full graph" if fullgraph else "graph breaks")

    def either(model: nn.Module, network: Network) -> Outcome:
        try:
            return attempt(model, network)
        except WrongError:
            raise
        except Exception:
            return attempt(model, network, fullgraph=False)

    return _or_network_cannot(network, either)


def _program(model: nn.Module, inputs: Inputs) -> torch.export.ExportedProgram:
    sizes = torch.export.ShapesCollection()
    for tensor in inputs.tensors():
        sizes[tensor] = {0: torch.export.Dim.DYNAMIC}
    return torch.export.export(model, inputs.args, inputs.kwargs, dynamic_shapes=sizes)


@torch.no_grad()
def exported(network: Network) -> Outcome:
    """``torch.export`` with a batch of any size, tried with another one."""

    def attempt(model: nn.Module, network: Network) -> Outcome:
        program = _program(model, network.inputs(4)).module()
        inputs = network.inputs(3)
        expect_same("batch of 3", inputs.to(program), inputs.to(model))
        return Outcome("works")

    return _or_network_cannot(network, attempt)


@torch.no_grad()
def onnx(network: Network) -> Outcome:
    """ONNX with a batch of any size, tried with another one in onnxruntime."""
    import onnxruntime

    def attempt(model: nn.Module, network: Network) -> Outcome:
        program = torch.onnx.export(
            _program(model, network.inputs(4)), dynamo=True, verbose=False, optimize=False
        )
        assert program is not None
        file = io.BytesIO()
        program.save(file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(
            file.getvalue(), options, providers=["CPUExecutionProvider"]
        )
        inputs = network.inputs(3)
        given = inputs.tensors()
        names = [argument.name for argument in session.get_inputs()]
        (found,) = session.run(
            None, {name: x.numpy() for name, x in zip(names, given, strict=True)}
        )
        expect_same("batch of 3", torch.from_numpy(found), inputs.to(model))
        return Outcome("works")

    return _or_network_cannot(network, attempt)


PARTS: dict[str, Callable[[Network], Outcome]] = {
    "attach": attach_softmax,
    "attach dropmax": attach_dropmax,
    "insert": inserted,
    "class maps": class_maps,
    "feature report": feature_report,
    "compile": compiled,
    "export": exported,
    "onnx": onnx,
}
