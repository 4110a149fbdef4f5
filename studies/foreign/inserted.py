"""Whether a regularizer that was inserted acts on what is meant."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from foreign.library import put_in
from foreign.networks import Network, logits_of
from foreign.outcome import Outcome, WrongError, expect_same

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SHORTCUTS = ("downsample", "shortcut")


@torch.no_grad()
def inserted(network: Network) -> Outcome:
    """Places are the blocks or their convolutions, what falls out is channels, it can be undone.

    Where a block is meant its own convolutions will do too, but for those on a shortcut and those
    whose maps have one cell (squeeze and excite).
    """
    model, inputs = network.build(), network.inputs(4)
    before, parts = logits_of(inputs.to(model)), _parts_of(model)
    plan = put_in(model, network)
    names = [place.name for place in plan.places]
    wrong = _said_of(
        lambda: expect_same("evaluation as inserted", logits_of(inputs.to(model)), before, 0.0),
        lambda: expect_same("evaluation", logits_of(inputs.to(model.eval())), before, 0.0),
    )
    plan.remove()
    blocks = blocks_of(model, network.where)
    convolutions = _convolutions_of(network, blocks)
    axes = dict.fromkeys(convolutions, (0, 1)) | dict.fromkeys(blocks, network.axes)
    wrong += _said_of(
        lambda: _expect_removed(model, parts),
        lambda: expect_same("after removal", logits_of(inputs.to(model)), before, 0.0),
        lambda: _expect_places(names, blocks, convolutions),
        lambda: _expect_channels_fall_out(network, names, axes),
    )
    if wrong:
        raise WrongError("; ".join(wrong))
    return Outcome("works", f"{len(names)} places, {len(blocks)} blocks")


def _said_of(*checks: Callable[[], None]) -> list[str]:
    """Make every check and return what is wrong."""
    wrong = []
    for check in checks:
        try:
            check()
        except WrongError as error:
            wrong.append(str(error))
    return wrong


def blocks_of(model: nn.Module, pattern: str) -> list[str]:
    """Return the names that a pattern means if a ``*`` stays within one part of a name."""
    parts = pattern.split(".")
    return [
        name
        for name, _ in model.named_modules()
        if len(name.split(".")) == len(parts) and all(map(fnmatchcase, name.split("."), parts))
    ]


def _convolutions_of(network: Network, blocks: list[str]) -> list[str]:
    """Return the convolutions within blocks whose maps have cells, but for shortcuts."""
    model = network.build()
    inside = {
        name: module
        for name, module in model.named_modules()
        for block in blocks
        if (name == block or name.startswith(f"{block}."))
        and isinstance(module, _CONVOLUTIONS)
        and not set(name[len(block) :].split(".")) & {*_SHORTCUTS, *network.shortcuts}
    }
    maps = _outputs(model, inside)
    network.inputs(4).to(model)
    found = {name: seen[0] for name, seen in maps.items() if seen}
    return [name for name, output in found.items() if output[0, 0].numel() > 1]


def _parts_of(model: nn.Module) -> list[tuple[str, int, int]]:
    """Return the modules and their numbers of hooks: some networks have their own."""
    return [
        (name, len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    ]


def _expect_removed(model: nn.Module, parts: list[tuple[str, int, int]]) -> None:
    if _parts_of(model) != parts:
        raise WrongError("removal leaves something behind")


def _expect_places(names: list[str], blocks: list[str], convolutions: list[str]) -> None:
    if sorted(names) in (sorted(blocks), sorted(convolutions)):
        return
    strange = [name for name in names if name not in {*blocks, *convolutions}]
    what = f"such as {strange[0]}" if strange else "blocks and convolutions mixed or left out"
    raise WrongError(
        f"{len(names)} places, {len(blocks)} blocks of {len(convolutions)} convolutions; {what}"
    )


def _expect_channels_fall_out(
    network: Network, names: list[str], axes: dict[str, tuple[int, int]]
) -> None:
    """Compare what a place gives with and without the regularizer in one training pass."""
    model = network.build()
    places = {name: model.get_submodule(name) for name in names}
    plain = _outputs(model, places)
    put_in(model, network)
    dropped = _outputs(model, places)
    network.inputs(4).to(model.train())
    for name in names:
        if not plain[name]:
            raise WrongError(f"{name} does not run")
        if name not in axes:  # said already
            continue
        for given, left in zip(plain[name], dropped[name], strict=True):
            _expect_whole_channels(name, given, left, axes[name])


def _expect_whole_channels(name: str, given: Tensor, left: Tensor, axes: tuple[int, int]) -> None:
    """What was 0 before tells nothing; the rest of a channel is gone or doubled together."""
    example, channel = axes
    rows = [x.movedim((example, channel), (0, 1)).flatten(2) for x in (given, left)]
    gone = (rows[0] != 0) & (rows[1] == 0)
    kept = (rows[0] != 0) & (rows[1] != 0)
    torn = gone.any(-1) & kept.any(-1)
    if not bool(gone.any()):
        raise WrongError(f"nothing falls out of {name}")
    if bool(torn.any()):
        raise WrongError(
            f"{name} {tuple(given.shape)}: {int(torn.sum())} of {torn.numel()} channels fall out "
            "in part"
        )


def _outputs(model: nn.Module, modules: dict[str, nn.Module]) -> dict[str, list[Tensor]]:
    """Return lists that fill with what the modules give whenever they run."""
    seen: dict[str, list[Tensor]] = {name: [] for name in modules}

    def hear(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[name].append((output[0] if isinstance(output, tuple) else output).clone())

        return hook

    for name, module in modules.items():
        module.register_forward_hook(hear(name))
    return seen
