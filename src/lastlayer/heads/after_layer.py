"""Whether a network does nothing to its last layer's output that a head could not follow."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lastlayer._checks import in_torch_func
from lastlayer._random import kept_generators

# Kinds of layers of torch.nn (by their file) that change values; what pools or reshapes does not.
_CHANGES = ("activation", "batchnorm", "conv", "linear", "normalization")
# Names of torch functions that change their first argument: relu_, __setitem__, __iadd__.
_IN_PLACE = re.compile(
    r".*[^_]_|__setitem__|__i(add|sub|mul|div|truediv|floordiv|mod|pow|and|or|xor|[lr]shift)__"
)
# Names of outputs of further classifiers, which a head in the last one's place would not train.
_AUXILIARY = re.compile("logits|aux|deep_supervision", re.IGNORECASE)


def refuse_layers_behind(model: nn.Module, name: str) -> None:
    """Raise ``ValueError`` if a layer that changes values follows ``name`` in a Sequential."""
    parts = name.split(".")
    for depth, part in enumerate(parts):
        parent = model.get_submodule(".".join(parts[:depth]))
        if type(parent) is not nn.Sequential:
            continue
        children = list(parent.named_children())
        place = [child for child, _ in children].index(part)
        for child, module in children[place + 1 :]:
            file = type(module).__module__.removeprefix("torch.nn.modules.")
            if file in _CHANGES and not isinstance(module, nn.Identity):
                behind = ".".join([*parts[:depth], child])
                raise ValueError(
                    f"layer {name!r} must be the network's last; {type(module).__name__} "
                    f"({behind!r}) follows it and would be given the head's features: remove it "
                    "first (a head has its own softmax), or name another layer with layer=..."
                )


class LayerOutput:
    r"""Looks, in the first forward pass of each mode, at what happens to the layer's output.

    A head on the features predicts as the network did if everything behind the layer,
    :math:`g`, commutes with it: :math:`g(W h + b) = W g(h) + b`. Selecting positions, reshaping
    and averaging do; a softmax, an activation or a second layer do not. The pass computes, beside
    :math:`g(h)`, also :math:`g(c \odot h + d)` for fixed :math:`c, d` of the width of the features
    (d = 0 for a layer without bias), by repeating on a second tensor each torch function that the
    layer's output goes through, and compares it with :math:`c \odot g(h) + d`. The network itself
    runs once.

    Args:
        name: dotted name of the replaced layer in the network.
        in_features: number of features D that it takes.
        bias: whether it has a bias.
    """

    def __init__(self, name: str, in_features: int, *, bias: bool) -> None:
        self.name, self.in_features, self.bias = name, in_features, bias
        self.unseen_modes = {True, False}

    def run(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Run the network, and raise ``ValueError`` if it does not end as a head needs it.

        Nothing is looked at while tracing, compiling or transforming, nor twice in a mode.
        """
        replica = getattr(network, "_is_replica", False)  # of DataParallel: threads share hooks
        jit: Any = torch.jit
        traced = torch.compiler.is_compiling() or jit.is_tracing() or in_torch_func()
        if traced or replica or network.training not in self.unseen_modes:
            return network(*args, **kwargs)
        twins = _Twins(self._twin_of, learned_acts=self.bias)
        place = network.get_submodule(self.name)
        handle = place.register_forward_hook(twins.start)
        try:
            with _eagerly(), twins:
                output = network(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except AttributeError as error:
            if error.obj is not place:  # the network reads .weight or .in_features itself
                raise
            raise ValueError(
                f"the network reads .{error.name} of layer {self.name!r}, whose place a head has "
                f"taken: it must call the layer and nothing more.\n{_REMEDY}"
            ) from error
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if not twins.seen:
                raise
            raise ValueError(
                f"the network fails behind layer {self.name!r} now that a head has taken its "
                f"place and its {self.in_features} features come out of it: {error}\n{_REMEDY}"
            ) from error
        finally:
            handle.remove()
        features = as_features(output)
        has_values = type(features) is Tensor and features.numel() and not features.is_meta
        if has_values and features.is_floating_point():  # else the head speaks
            self._judge(features, twins)
            self.unseen_modes.discard(network.training)
        return output

    def _twin_of(self, features: Tensor) -> Tensor:
        """Return the features under the fixed map: an offset and a signed scale for each.

        Large ones, for a soft cap such as ``30 * tanh(x / 30)`` looks linear near 0.
        """
        index = torch.arange(features.shape[-1], device=features.device)
        scale = (8 + index % 13) * (1 - 2 * (index % 2))
        scaled = features * scale.to(features.dtype)
        if not self.bias:
            return scaled
        return scaled + (8 * (index % 7 - 3.5)).to(features.dtype)

    def _judge(self, features: Tensor, twins: _Twins) -> None:
        seen = ", ".join(dict.fromkeys(twins.names)) or "nothing"
        start = f"layer {self.name!r} must be the network's last"
        if not twins.seen:
            raise ValueError(f"{start}; the network did not run it.\n{_REMEDY}")
        if twins.fed_back:
            raise ValueError(f"{start}; the network runs it again on its own output.\n{_REMEDY}")
        if features.dim() == 0 or features.shape[-1] != self.in_features:
            raise ValueError(
                f"{start}, so that its {self.in_features} features come out; got shape "
                f"{tuple(features.shape)} after {seen}.\n{_REMEDY}"
            )
        twin = twins.of(features)
        if twin is None:
            if any(
                features.shape == output.shape and torch.equal(features.detach(), output.detach())
                for output in twins.seen
            ):
                return
            raise ValueError(f"{start}; the network's output does not come from it.\n{_REMEDY}")
        dtypes = (features.dtype, twins.seen[-1].dtype)
        epsilon = max(torch.finfo(dtype).eps for dtype in dtypes)
        if not _close(twin, self._twin_of(features.detach()), epsilon):
            raise ValueError(
                f"{start}; its output goes through {seen}, which is neither selecting nor "
                f"averaging: a head would be given the result as features.\n{_REMEDY}"
            )


class _Twins(TorchFunctionMode):
    """Repeats on a twin, without gradients, what is done to tensors that have one.

    ``twin_of`` gives the twin of the layer's output. With ``learned_acts`` no learned factor
    commutes, so that parameters are moved in the twin.
    """

    def __init__(self, twin_of: Callable[[Tensor], Tensor], *, learned_acts: bool) -> None:
        super().__init__()
        self.twin_of, self.learned_acts = twin_of, learned_acts
        self.names: list[str] = []
        self.seen: list[Tensor] = []
        self.fed_back = False
        self.pairs: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # the tensors too, so that ids stay theirs

    def start(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Give the stand-in's output a twin; a copy, so that its input goes without."""
        self.fed_back = self.fed_back or self._is_concerned(inputs)
        output = output.clone()
        with torch.no_grad():
            self.pairs[id(output)] = (output, self.twin_of(output.detach()))
        self.seen.append(output)
        return output

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the twin of a tensor, or None."""
        return self.pairs.get(id(tensor), (None, None))[1]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self._is_concerned((args, kwargs)):
            return func(*args, **kwargs)
        twin = self._repeated(func, args, kwargs)
        result = func(*args, **kwargs)
        if self._pair(result, twin):
            name = getattr(func, "__name__", str(func))
            if name == "__get__":
                name = getattr(func, "__self__", func).__name__
            self.names.append(name.strip("_"))
        return result

    def _is_concerned(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return id(value) in self.pairs
        if isinstance(value, dict):
            value = value.values()
        elif not isinstance(value, (tuple, list)):
            return False
        return any(self._is_concerned(part) for part in value)

    def _swapped(self, value: Any) -> Any:
        if isinstance(value, nn.Parameter) and self.learned_acts and value.is_floating_point():
            return value.detach() + 1  # one that starts at 0 or 1 acts once it learns
        if isinstance(value, Tensor):
            return self.pairs.get(id(value), (value, value))[1]
        if isinstance(value, dict):
            return {key: self._swapped(part) for key, part in value.items()}
        if type(value) in (tuple, list):
            return type(value)(self._swapped(part) for part in value)
        return value

    def _repeated(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Return what ``func`` gives for the twins; before the real call, which may change them."""
        target = args[0] if args else None
        in_place = _IN_PLACE.fullmatch(getattr(func, "__name__", ""))
        if in_place and isinstance(target, Tensor) and id(target) not in self.pairs:
            self.pairs[id(target)] = (target, target.detach().clone())
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
        try:
            with torch.no_grad(), kept_generators():
                return func(*self._swapped(args), **self._swapped(kwargs))
        except Exception:
            return None  # the result has no twin; the real call speaks for itself

    def _pair(self, result: Any, twin: Any) -> bool:
        """Remember the twins of the tensors in a result; return whether there were any."""
        if isinstance(result, Tensor) and isinstance(twin, Tensor):
            self.pairs[id(result)] = (result, twin)
            return True
        if isinstance(result, (tuple, list)) and isinstance(twin, (tuple, list)):
            paired = [self._pair(*both) for both in zip(result, twin, strict=False)]
            return any(paired)  # each of them, also behind the first
        return False


def as_features(output: Any) -> Tensor:
    """Return the tensor of features in what a backbone returned, or raise ``TypeError``."""
    # transformers' models return an object that carries the replaced layer's output, others a
    # dictionary. A tuple with .logits is Inception's or GoogLeNet's, with auxiliary logits.
    if isinstance(output, Tensor):
        return output
    features = (
        output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    )
    others = _other_logits(output)
    if isinstance(features, Tensor) and not others and not isinstance(output, tuple):
        return features
    found = " with ".join([type(output).__name__, *others])
    raise TypeError(
        "backbone must return a tensor of features (or an object or dictionary whose logits are "
        f"one, and no others); got {found}. Auxiliary outputs would be lost without a word: switch "
        "them off (torchvision's Inception and GoogLeNet: aux_logits=False; transformers: leave "
        "return_dict at True), or wrap the backbone in a module that returns the features alone"
    )


def _other_logits(output: Any) -> list[str]:
    """Return the names of further outputs such as ``aux_logits``; under compilation, of none."""
    if torch.compiler.is_compiling():
        return []
    return [
        str(name)
        for name, value in _fields(output).items()
        if name != "logits" and _AUXILIARY.search(str(name)) and _holds_tensors(value)
    ]


def _fields(output: Any) -> Mapping[Any, Any]:
    """Return what a mapping or an object holds, by name."""
    if isinstance(output, Mapping):
        return output
    slots = [getattr(kind, "__slots__", ()) for kind in type(output).__mro__]
    names = [n for part in slots for n in ([part] if isinstance(part, str) else part)]
    held = {name: getattr(output, name, None) for name in names}
    return held | getattr(output, "__dict__", {})


def _holds_tensors(value: Any) -> bool:
    parts = value if isinstance(value, (tuple, list)) else (value,)
    return any(isinstance(part, Tensor) for part in parts)


_REMEDY = (
    "Name another layer with layer=..., take away what follows it (a head has its own softmax), or "
    "let the network return features and build lastlayer.Classifier(network, head)."
)


def _eagerly() -> AbstractContextManager[object]:
    """Return a context in which compiled parts of the network run uncompiled."""
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import is slow
        return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]
    return nullcontext()


def _close(found: Tensor, expected: Tensor, epsilon: float) -> bool:
    """Return whether two tensors agree to half the digits of a precision, where both are finite."""
    if found.shape != expected.shape:
        return False
    found, expected = found.float(), expected.float()
    finite = found.isfinite() & expected.isfinite()
    largest = torch.where(finite, expected.abs(), 0.0).max()
    difference = torch.where(finite, (found - expected).abs(), 0.0).max()
    return bool(difference <= epsilon**0.5 * largest)
