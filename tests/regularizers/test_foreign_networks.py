"""Insertion into networks of timm, torchvision and transformers, where these are installed."""

from __future__ import annotations

import pytest
import torch

from lastlayer.regularizers import insert

REASON = "a library of networks that the project does not depend on"
TIMM = {  # blocks, branches
    "resnet18": (8, 8),
    "seresnet18": (8, 8),
    "convnext_atto": (12, 12),
    "vit_tiny_patch16_224": (12, 24),
    "swin_tiny_patch4_window7_224": (12, 24),
    "efficientnet_b0": (16, 9),
    "mobilenetv3_small_050": (12, 7),
}
TORCHVISION = {"resnet18": (8, 8), "mobilenet_v3_small": (11, 6), "convnext_tiny": (18, 18)}
TORCHVISION |= {"vit_b_32": (12, 24), "swin_t": (12, 12), "regnet_y_400mf": (16, 16)}
SIZED = ("vit", "swin")


def check(network, blocks: int, branches: int) -> None:
    """The counts are those of the published depths; every branch is reached by a training step."""
    plan = insert(network, "drop-path", kind="block", p=0.5)
    assert len(plan.places) == blocks
    plan.remove()
    plan = insert(network, "drop-path", kind="branch", p=0.5)
    assert len(plan.places) == branches


def reached(network, example) -> None:
    size = len(next(iter(example.values())) if isinstance(example, dict) else example)
    assert size == 2
    insert(network, "drop-path", kind="branch", p=0.5, example=example)  # refuses what never runs


@pytest.mark.parametrize("name", TIMM)
def test_of_timm(name):
    timm = pytest.importorskip("timm", reason=REASON)
    network = timm.create_model(name)
    check(network, *TIMM[name])
    reached(network, torch.randn(2, 3, *[224 if name.startswith(SIZED) else 64] * 2))


@pytest.mark.parametrize("name", TORCHVISION)
def test_of_torchvision(name):
    models = pytest.importorskip("torchvision.models", reason=REASON)
    network = getattr(models, name)()
    check(network, *TORCHVISION[name])
    reached(
        network, torch.randn(2, 3, 64, 64) if name != "vit_b_32" else torch.randn(2, 3, 224, 224)
    )


@pytest.mark.parametrize("name", ["bert", "distilbert", "vit", "swin", "gpt2", "modernbert"])
def test_of_transformers(name):
    transformers = pytest.importorskip("transformers", reason=REASON)
    small = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
    small |= {"intermediate_size": 32}
    sizes = {
        "distilbert": {"n_layers": 2, "dim": 16, "n_heads": 2, "hidden_dim": 32},
        "gpt2": {"n_layer": 2, "n_embd": 16, "n_head": 2},
        "vit": {"image_size": 32, "patch_size": 8, **small},
        "swin": {
            "image_size": 32,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
        },
    }
    config = transformers.AutoConfig.for_model(name, **sizes.get(name, small))
    network = transformers.AutoModel.from_config(config)
    images = name in ("vit", "swin")
    example = {"pixel_values": torch.randn(2, 3, 32, 32)} if images else None
    example = example or {"input_ids": torch.randint(5, 20, (2, 7))}
    check(network, 2, 2 if name == "vit" else 4)
    insert(network, "spatial-dropout", kind="block", p=0.5, example=example)
    reached(network, example)
    out = network.train()(**example).last_hidden_state
    assert out.shape[0] == 2


def test_no_convolution_of_a_gate_is_in_a_stage():
    timm = pytest.importorskip("timm", reason=REASON)
    for name in ("seresnet18", "efficientnet_b0", "regnety_002"):
        network = timm.create_model(name)
        plan = insert(network, "disout", kind="convolution", example=torch.randn(2, 3, 96, 96))
        assert not any(place.is_one_cell for place in plan.places)


def test_a_pattern_of_blocks_gives_one_a_block_of_a_vit():
    timm = pytest.importorskip("timm", reason=REASON)
    network = timm.create_model("vit_tiny_patch16_224")
    assert len(insert(network, "drop-path", where="blocks.*").places) == 12
