"""Time of regularisers relative to ``torch.nn.Dropout``, forward and backward, and in ResNet-56.

Run ``python benchmarks/regularizers.py``. Every round times all of them in turn; the figures are
medians over the rounds of the time and of the ratio within a round. The second table is a whole
training step of the pre-activation ResNet-56 with 18 of them, relative to the step without.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from paired import RESULTS, Call, paired_medians, print_table, write_results
from torch import Tensor, nn

from lastlayer.heads import Classifier, build_head
from lastlayer.models import build
from lastlayer.regularizers import Disout, DropBlock, Dropout, insert

#: Shape, block, rate: where the papers put them, in ResNet-56 and in ResNet-50.
CASES = {
    "128x16x32x32": ((128, 16, 32, 32), 6, 0.09),
    "128x64x8x8": ((128, 64, 8, 8), 6, 0.09),
    "32x1024x14x14": ((32, 1024, 14, 14), 7, 0.07),
}


def layers(channels: int, block: int, p: float) -> dict[str, nn.Module]:
    behind = nn.Conv2d(channels, channels, 3)
    return {
        "torch.nn.Dropout": nn.Dropout(p),
        "Dropout": Dropout(p),
        "DropBlock, shared mask": DropBlock(p, block_size=block, share_channels=True),
        "DropBlock": DropBlock(p, block_size=block),
        "Disout": Disout(p, block_size=block).follow(behind),
        "Disout, dense sampler": Disout(p, block_size=block, sampler="dense").follow(behind),
        "Disout as released": Disout(p, block_size=block, released=True).follow(behind),
    }


def layer_calls(shape: tuple[int, ...], block: int, p: float) -> dict[str, Call]:
    features = torch.randn(shape, requires_grad=True)
    upstream = torch.randn(shape)

    def step(layer: nn.Module) -> Call:
        return lambda: torch.autograd.grad(layer(features), features, upstream)

    return {name: step(layer) for name, layer in layers(shape[1], block, p).items()}


def network_calls(batch: int) -> dict[str, Call]:
    images, target = torch.rand(batch, 3, 32, 32), torch.randint(10, (batch,))
    images = images.contiguous(memory_format=torch.channels_last)

    def step(name: str | None, **options: object) -> Call:
        torch.manual_seed(0)
        backbone = build("preact-resnet56", (3, 32, 32))
        classifier = Classifier(backbone, build_head("softmax", 64, 10))
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if name is not None:
            insert(backbone, name, where="layer3.*.conv[12]", p=0.09, **options)

        def call() -> None:
            loss: Tensor = classifier(images, target=target).loss
            loss.backward()
            classifier.zero_grad()

        return call

    return {
        "no regulariser": step(None),
        "Dropout": step("dropout"),
        "DropBlock": step("drop-block", block_size=6),
        "Disout": step("disout", block_size=6),
        "Disout as released": step("disout", block_size=6, released=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--network-rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "regularizers-cpu.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    for name, case in CASES.items():
        results[name] = paired_medians(
            layer_calls(*case), rounds=arguments.rounds, minimum_seconds=0.03
        )
    print_table("forward and backward, relative to torch.nn.Dropout (ms)", results)
    network = paired_medians(network_calls(arguments.batch), rounds=arguments.network_rounds)
    print_table("step of ResNet-56, relative to none (ms)", {"preact-resnet56": network})
    write_results(arguments.output, {"layers": results, "preact-resnet56": network})


if __name__ == "__main__":
    main()
