"""A regularizer at work in a network: on the first tensor of what a module takes or gives."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lastlayer._inputs import call, evaluating, take_apart
from lastlayer._random import kept_generators
from lastlayer.regularizers.base import Regularizer

Act = Callable[[Tensor], Tensor]


@dataclass
class Hook:
    """What stands behind or before a module: its child ``child`` acts on the first tensor.

    Attributes:
        child: name of the regularizer among the module's children.
        place: what an error calls the place.
        dims: how many dimensions the features must have; None if that is not known.
    """

    child: str
    place: str
    dims: int | None = None

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """Act on a module's output: a forward hook."""
        changed = on_first_tensor(self._act(module), output)
        if changed is None:
            raise TypeError(f"{self.place} gives no floating-point tensor; got {_types(output)}")
        return changed

    def before(
        self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Act on a module's first input, by position or by name: a forward pre-hook."""
        act = self._act(module)
        changed = on_first_tensor(act, inputs) if inputs else None
        if changed is not None:
            return changed, options
        changed = on_first_tensor(act, options)
        if changed is None:
            raise TypeError(f"{self.place} takes no floating-point tensor; got {_types(inputs)}")
        return inputs, changed

    def only_here(
        self, regularizer: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Refuse calls of the regularizer by others than this hook: its forward pre-hook.

        As a child of the module it would act twice where a forward runs over all children.
        """
        rest = {name: value for name, value in options.items() if name != "by_hook"}
        if len(rest) == len(options):
            raise RuntimeError(
                f"{self.place}: the regularizer there was called by hand, or by a forward that "
                "runs over all children of its module and so would regularize twice; name a "
                "module inside, or one around it"
            )
        return inputs, rest

    def _act(self, module: nn.Module) -> Act:
        regularizer = module._modules.get(self.child)
        if regularizer is None:
            raise RuntimeError(
                f"{self.place}: its child {self.child!r} is gone; call remove of the insertion"
            )
        # No other module in its place, put there by hand, takes the argument.
        inserted = isinstance(regularizer, Regularizer) and regularizer._inserted
        called = {"by_hook": True} if inserted else {}

        def act(features: Tensor) -> Tensor:
            if self.dims is not None and features.dim() != self.dims:
                raise ValueError(
                    f"{self.place}: features of {self.dims} dimensions were expected, as of the "
                    f"convolutions inside; got {tuple(features.shape)}: give channel_dim"
                )
            changed: Tensor = regularizer(features, **called)
            return changed

        return act


def on_first_tensor(act: Act, value: Any) -> Any:
    """Return a value with its first floating-point tensor changed; None if it has none.

    Of a tuple, list, mapping or data class the first tensor of two dimensions or more is taken: the
    hidden states of a transformer's layer, not its loss. The rest stays as it is.
    """
    if isinstance(value, Tensor):
        return act(value)
    if isinstance(value, Mapping):
        return _in_mapping(act, value)
    if isinstance(value, tuple | list):
        for index, item in enumerate(value):
            changed = _inner(act, item)
            if changed is not None:
                items = [*value[:index], changed, *value[index + 1 :]]
                make = getattr(value, "_make", type(value))
                return make(items)
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            changed = _inner(act, getattr(value, field.name))
            if changed is not None:
                return dataclasses.replace(value, **{field.name: changed})
    return None


def _in_mapping(act: Act, value: Mapping[Any, Any]) -> Any:
    for key, item in value.items():
        changed = _inner(act, item)
        if changed is not None:
            other = copy.copy(value)
            if not isinstance(other, MutableMapping):
                return {**value, key: changed}
            other[key] = changed
            return other
    return None


def _inner(act: Act, item: Any) -> Any:
    if isinstance(item, Tensor):
        return act(item) if item.is_floating_point() and item.dim() > 1 else None
    return on_first_tensor(act, item)


def first_tensor(value: Any) -> Tensor | None:
    """Return the tensor that :func:`on_first_tensor` would change."""
    found: list[Tensor] = []

    def note(features: Tensor) -> Tensor:
        found.append(features)
        return features

    on_first_tensor(note, value)
    return found[0] if found else None


def _types(value: Any) -> str:
    items = value if isinstance(value, tuple | list) else [value]
    return ", ".join(type(item).__name__ for item in items) or "nothing"


class Observed(NamedTuple):
    """What a run of a network on an example shows.

    Attributes:
        features: the features at each place, at its first call.
        size: number of examples.
        order: names of the modules that ran, in the order in which they ended, once for each call.
    """

    features: dict[str, Tensor]
    size: int
    order: list[str]


def observe(model: nn.Module, names: list[str], position: str, example: Any) -> Observed:
    """Return what is seen at places while a network runs once on an example, without gradients.

    It is in evaluation mode meanwhile. Raises ``TypeError`` if a place has no tensor,
    ``ValueError`` if a module is not called.
    """
    seen: dict[str, Tensor | None] = {}
    order: list[str] = []
    handles = [_watch(model.get_submodule(name), name, position, seen) for name in names]
    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(lambda *_, name=name: order.append(name)))
    try:
        with torch.no_grad(), kept_generators(), evaluating(model):
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if name not in seen:
            raise ValueError(f"where: {name!r} is not called when the network runs on the example")
        if seen[name] is None:
            raise TypeError(f"where: {name!r} has no floating-point tensor {position} it")
    values = take_apart(example)[1].values()
    size = next(len(value) for value in values if isinstance(value, Tensor) and value.dim())
    features = {name: value for name, value in seen.items() if value is not None}
    return Observed(features, size, order)


def _watch(module: nn.Module, name: str, position: str, seen: dict[str, Tensor | None]) -> Any:
    def note(value: Any) -> None:
        features = first_tensor(value)
        if features is not None and not features.is_floating_point():
            features = None
        seen.setdefault(name, features)

    if position == "after":
        return module.register_forward_hook(lambda m, i, output: note(output))
    return module.register_forward_pre_hook(
        lambda m, inputs, options: note(inputs if first_tensor(inputs) is not None else options),
        with_kwargs=True,
    )
