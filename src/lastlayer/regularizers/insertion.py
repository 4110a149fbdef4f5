"""Regularizers put into a network by module name, and taken out again."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lastlayer._channels import own_channel_dim
from lastlayer._checks import check_channel_dim, check_choice
from lastlayer._random import kept_generators
from lastlayer._text import aligned
from lastlayer.regularizers.base import Regularizer
from lastlayer.regularizers.blocks import Disout
from lastlayer.regularizers.catalog import REGULARIZERS, build_regularizer
from lastlayer.regularizers.channels import find_channel_dim, is_batch_first, map_dims
from lastlayer.regularizers.hooks import Hook, Observed, observe
from lastlayer.regularizers.next_layer import layers_around, next_layer
from lastlayer.regularizers.places import KINDS, find_places

POSITIONS = ("after", "before")


@dataclass(frozen=True)
class Place:
    """One regularizer in a network.

    Attributes:
        name: dotted name of the module that it stands behind or before.
        position: ``"after"`` or ``"before"``.
        regularizer: the regularizer.
        next_name: dotted name of the layer that takes its output next; None if none was found.
        shape: shape of the features there, of the example given to :func:`insert`; None without.
    """

    name: str
    position: str
    regularizer: Regularizer
    next_name: str | None
    shape: tuple[int, ...] | None = None

    @property
    def is_one_cell(self) -> bool:
        """Whether the features are known to be maps of one cell, ``(N, C, 1, ...)``."""
        if self.shape is None or len(self.shape) < 3:
            return False
        sizes = list(self.shape[1:])
        del sizes[0 if getattr(self.regularizer, "channel_dim", 1) == 1 else -1]
        return all(size == 1 for size in sizes)


@dataclass
class Insertion:
    """What :func:`insert` did: print it to see where, call ``remove`` to undo it."""

    places: list[Place]
    _undo: list[tuple[nn.Module, str, tuple[RemovableHandle, ...]]] = field(
        default_factory=list, repr=False
    )

    def remove(self) -> None:
        """Take the regularizers out of the network; a second call does nothing."""
        if self._undo:
            _forget_compiled_code()
        while self._undo:
            module, child, handles = self._undo.pop()
            for handle in handles:
                handle.remove()
            regularizer = module._modules.pop(child, None)
            if isinstance(regularizer, Regularizer):
                regularizer._inserted = False

    def __str__(self) -> str:
        rows = [("where", "", "regularizer", "features", "shaped by")]
        for place in self.places:
            shape = "-" if place.shape is None else " x ".join(map(str, place.shape))
            features = f"{shape}, one cell" if place.is_one_cell else shape
            shaped = place.next_name or "-"
            rows.append((place.position, place.name, str(place.regularizer), features, shaped))
        return aligned(rows, left=5)


def insert(
    model: nn.Module,
    regularizer: str,
    *,
    where: str | Sequence[str] | None = None,
    kind: str = "module",
    position: str = "after",
    channel_dim: int | None = None,
    example: Any = None,
    num_examples: int | None = None,
    **options: Any,
) -> Insertion:
    """Put a regularizer behind, or before, every module that a pattern or a kind of place means.

    A pattern such as ``"layer3.*.conv1"`` is matched with the dotted names of the modules: ``*``
    stays within one name, ``**`` crosses dots, so that ``"blocks.*"`` means the blocks and
    ``"blocks.**"`` all that is in them. One that matches a module with convolutions inside, such as
    ``"layer3"`` or ``"layer3.0"``, stands for these convolutions, those on a shortcut or in a gate
    (squeeze-excite and its like) excepted; one that matches a shortcut or a gate for its end. A
    ``Sequential`` stands for its last module, or its first in position ``"before"``.

    With ``kind``, ``where`` says in which part of the network to look: for each ``"block"``
    (residual blocks of torchvision, timm, transformers and ours, transformer layers), each
    ``"branch"`` of a block, at its end before the addition, as stochastic depth needs it, or each
    ``"convolution"``.

    Weights and the names of weights stay as they are; every regularizer becomes a child of the
    module that it belongs to, so ``train()``, ``eval()``, ``to()`` and copies reach it, and a
    ``state_dict`` saved from now on also holds its rate. Load weights saved before first.

    A network that was compiled before is compiled again at its next call, and so is all other
    compiled code of the process. Networks of ``torch.jit`` take no regularizers.

    Where a module gives, or takes, several values (a tuple, a mapping, a data class), the
    regularizer acts on the first floating-point tensor of two dimensions or more.

    Disout takes its statistic from the next layer in the order in which the modules ran on the
    ``example``, or else in which they were registered: after a convolution the next convolution,
    transposed or not, that is on no shortcut and in no gate and takes as many channels; after a
    linear layer the next linear layer or attention; in position ``"before"`` the module itself.
    Where there is none, or a recurrent or bilinear layer comes first, the noise has its default
    scale.

    Args:
        model: any network, changed in place.
        regularizer: a name of ``lastlayer list regularizers``.
        where: one pattern or several; ``""`` is the network itself. May be left out with another
            ``kind`` than ``"module"``, for all of the network.
        kind: ``"module"`` for the modules that ``where`` names; ``"block"``, ``"branch"`` or
            ``"convolution"`` for those within.
        position: ``"after"`` acts on the module's output, ``"before"`` on its first input.
        channel_dim: 1 where the features are ``(N, C, ...)``, -1 where they are ``(N, ..., C)``;
            None to have it from the layers at each place. Not for regularizers without channels.
        example: an input of the network of two examples or more: a tensor, a tuple of arguments or
            a dict of named ones. The network runs on it once; shapes are then known, told in the
            plan, checked, and maps of one cell are warned of.
        num_examples: number of training examples, for the regularizers that learn their rate; their
            ``num_features`` is found.
        **options: arguments of the regularizer.

    Returns:
        The plan, to print or to undo.

    Raises:
        TypeError: if there is no floating-point tensor at a place, or an argument has another
            type.
        RuntimeError: if the forward of a module runs over all of its children, with an ``example``;
            without one it is raised in the first forward pass.
        ValueError: if a pattern matches nothing, an argument does not fit, or it is not clear where
            the channels are.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> insertion = insert(network, "disout", where="0", p=0.1)
        >>> insertion.places[0].next_name
        '2'
        >>> insertion.remove()
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module; got {type(model).__name__}")
    if not isinstance(regularizer, str):
        raise TypeError(
            "regularizer must be a name, such as 'dropout', with its options beside it; "
            f"got {regularizer!r}"
        )
    check_choice("position", position, POSITIONS)
    check_choice("kind", kind, KINDS)
    if kind == "module" and where is None:
        raise ValueError("where: a pattern of module names must be given, or a kind of place")
    if kind == "branch" and position == "before":
        raise ValueError('kind="branch" is the end of a branch: position must be "after"')
    names = find_places(model, "" if where is None else where, kind, position)
    seen = None if example is None else observe(model, names, position, example)
    modules = dict(model.named_modules(remove_duplicate=False))  # before any regularizer is there
    insertion = Insertion([])
    try:
        for name in names:
            site = _Site(modules, name, position, seen)
            built = _build(site, regularizer, channel_dim, num_examples, options)
            _put(site, built, insertion)
        if example is not None:  # a forward that runs over the new children fails here
            observe(model, names, position, example)
    except Exception:
        insertion.remove()
        raise
    _forget_compiled_code()
    single = [place.name for place in insertion.places if place.is_one_cell]
    if single:
        warnings.warn(
            f"the features have one cell each {position} {', '.join(single)}: "
            "a gate's or those behind the last pooling; print the plan",
            stacklevel=2,
        )
    return insertion


def _forget_compiled_code() -> None:
    """Let compiled networks be compiled anew: their code does not look for new hooks."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def inserted(model: nn.Module) -> Iterator[tuple[str, Regularizer]]:
    """Yield the dotted names and the regularizers in a network, inserted or built in."""
    for name, module in model.named_modules():
        if isinstance(module, Regularizer):
            yield name, module


@dataclass(frozen=True)
class _Site:
    """A place before anything stands there, and what an example shows of it.

    Attributes:
        modules: all modules of the network by name.
        name: that of the module at the place.
        position: ``"after"`` or ``"before"``.
        seen: what a run on an example showed; None without one.
    """

    modules: dict[str, nn.Module]
    name: str
    position: str
    seen: Observed | None

    @property
    def features(self) -> Tensor | None:
        return None if self.seen is None else self.seen.features[self.name]

    @property
    def order(self) -> list[str] | None:
        return None if self.seen is None else self.seen.order

    @property
    def module(self) -> nn.Module:
        return self.modules[self.name]

    def __str__(self) -> str:
        side = "behind" if self.position == "after" else "before"
        return f"{side} {self.name or 'the network'!r} ({type(self.module).__name__})"


def _build(
    site: _Site,
    regularizer: str,
    channel_dim: int | None,
    num_examples: int | None,
    options: dict[str, Any],
) -> Regularizer:
    """Build a regularizer, told of channels and examples where it asks for them."""
    parameters = inspect.signature(REGULARIZERS.get(regularizer)).parameters
    channels, _ = layers_around(site.modules, site.name, site.position, order=site.order)
    known: dict[str, Any] = {"num_examples": num_examples}
    if "channel_dim" in parameters:
        known["channel_dim"] = _channel_dim(site, regularizer, channel_dim, channels)
        if site.features is not None:
            channels = site.features.shape[known["channel_dim"]]
    elif channel_dim is not None:
        raise ValueError(f"channel_dim: {regularizer!r} has no notion of channels")
    known["num_features"] = channels
    wanted = {k: v for k, v in known.items() if v is not None and k in parameters}
    built = build_regularizer(regularizer, **(wanted | options))
    _check_site(site, built)
    return built


def _channel_dim(site: _Site, regularizer: str, given: int | None, channels: int | None) -> int:
    """Return where the channels are: as given, as the layers say, or as the example shows."""
    if given is not None:
        check_channel_dim(given)
        return given
    found = find_channel_dim(site.name, site.modules, site.position)
    features = site.features
    if features is not None and features.dim() == 2:
        return 1
    if found is None and features is not None and features.dim() > 2:
        fitting = [dim for dim in (1, -1) if features.shape[dim] == channels]
        found = fitting[0] if len(fitting) == 1 else None
    if found is None:
        raise ValueError(
            f"channel_dim: it is not clear where the channels are {site}; {regularizer!r} needs 1 "
            "for features (N, C, ...), or -1 for channels last (N, H, W, C) and tokens (N, T, C)"
        )
    return found


def _check_site(site: _Site, built: Regularizer) -> None:
    """Raise, as far as it can be known, where a regularizer would fail or err in training."""
    if site.position == "before" and isinstance(site.module, nn.Embedding | nn.EmbeddingBag):
        raise TypeError(f"where: there are indices {site}, no floating-point features")
    if built.unit != "element" and not is_batch_first(site.name, site.modules):
        raise ValueError(
            f"where: dimension 0 is positions, not examples, {site}; "
            f"{type(built).__name__} needs a module with batch_first=True"
        )
    if site.seen is None or site.features is None:
        dims = map_dims(site.name, site.modules, site.position)
        if dims is not None:
            _at(site, built.check_dims, dims)
        return
    if built.unit == "example" and len(site.features) != site.seen.size:
        raise ValueError(
            f"where: dimension 0 is {len(site.features)}, not the {site.seen.size} examples, {site}"
        )
    _at(site, built.check_dims, site.features.dim())
    state = None if built.generator is None else built.generator.get_state()
    with kept_generators(), torch.no_grad():
        _at(site, built, site.features)
    if built.generator is not None and state is not None:
        built.generator.set_state(state)


def _at(site: _Site, check: Any, argument: Any) -> None:
    try:
        check(argument)
    except (ValueError, TypeError) as error:
        raise type(error)(f"where: {site}: {error}") from error


def _put(site: _Site, built: Regularizer, insertion: Insertion) -> None:
    module = site.module
    next_name = None
    if isinstance(built, Disout):
        channels, candidates = layers_around(
            site.modules, site.name, site.position, built.channel_dim, order=site.order
        )
        if site.features is not None:
            channels = site.features.shape[built.channel_dim]
        next_name, layer = next_layer(candidates, channels)
        built.follow(layer)
    numbered = chain([""], map(str, count(2)))
    child = next(n for n in (f"regularizer{i}" for i in numbered) if not hasattr(module, n))
    hook = Hook(child, str(site), _expected_dims(site, built))
    handle: RemovableHandle
    if site.position == "after":
        handle = module.register_forward_hook(hook.after)
    else:
        handle = module.register_forward_pre_hook(hook.before, with_kwargs=True)
    around = site.modules[""]
    tensors = chain(module.parameters(), module.buffers(), around.parameters(), around.buffers())
    device = next((tensor.device for tensor in tensors), None)
    module.add_module(child, built.train(module.training).to(device))
    built._inserted = True
    guard = built.register_forward_pre_hook(hook.only_here, with_kwargs=True)
    insertion._undo.append((module, child, (handle, guard)))
    shape = None if site.features is None else tuple(site.features.shape)
    insertion.places.append(Place(site.name, site.position, built, next_name, shape))


def _expected_dims(site: _Site, built: Regularizer) -> int | None:
    """Return the dimensions from which a guess of the channels was made: it is held to them."""
    if getattr(built, "channel_dim", -1) != 1 or own_channel_dim(site.module) is not None:
        return None
    return map_dims(site.name, site.modules, site.position)
