"""``import lastlayer`` is light: torch and numpy, and nothing that only some users need."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import lastlayer

HEAVY = (
    "sklearn", "scipy", "matplotlib", "lightning", "torchmetrics", "pydantic", "rich", "PIL",
    "joblib", "cyclopts", "jinja2", "tomli_w", "datasets", "transformers", "timm", "pandas",
)  # fmt: skip


SCRIPT = """
import json, sys
import torch
held = [sorted(sys.modules)]
import lastlayer
held.append(sorted(sys.modules))
model = lastlayer.attach(torch.nn.Linear(3, 2), "dropmax")
model(torch.randn(4, 3), target=torch.tensor([0, 1, 0, 1])).loss.backward()
held.append(sorted(sys.modules))
print(json.dumps(held))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Heavy packages that a fresh interpreter holds after torch, after us, after a first use."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    held = json.loads(done.stdout.splitlines()[-1])
    packages = [{name.partition(".")[0] for name in modules} & set(HEAVY) for modules in held]
    return dict(zip(("torch", "lastlayer", "use"), packages, strict=True))


def test_importing_the_package_loads_nothing_heavy_that_torch_does_not(loaded):
    assert loaded["lastlayer"] - loaded["torch"] == set()


def test_using_a_head_loads_nothing_heavy_either(loaded):
    assert loaded["use"] - loaded["torch"] == set()


ROOMS = ["lastlayer"] + [
    f"lastlayer.{info.name}" for info in pkgutil.iter_modules(lastlayer.__path__) if info.ispkg
]


@pytest.mark.parametrize("room", ROOMS)
def test_every_exported_name_exists_and_is_listed_once(room):
    module = importlib.import_module(room)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    assert all(hasattr(module, name) for name in names)


def test_the_examples_of_the_front_page_run():
    import torch

    head = lastlayer.heads.DropMax(in_features=16, num_classes=5)
    features, target = torch.randn(4, 16), torch.tensor([0, 1, 2, 3])
    out = head(features, target)
    assert set(out.terms) == {"nll", "kl", "entropy", "auxiliary"}
    assert head.log_prob(features).shape == (4, 5)
    assert head.retain_prob(features).shape == (4, 5)


def test_parts_are_loaded_when_they_are_first_used():
    code = (
        "import sys, lastlayer; "
        "assert 'torch' not in sys.modules and 'heads' in dir(lastlayer); "
        "from lastlayer import attach; assert callable(attach); "
        "assert lastlayer.losses.__name__ == 'lastlayer.losses'"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("room", [room for room in ROOMS[1:] if room != "lastlayer.cli"])
def test_every_room_but_the_command_line_is_an_attribute_of_the_package(room, monkeypatch):
    name = room.removeprefix("lastlayer.")
    monkeypatch.delattr(lastlayer, name, raising=False)  # as if no other test had imported it
    assert getattr(lastlayer, name) is importlib.import_module(room)
    assert name in lastlayer.__all__
    assert name in dir(lastlayer)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'dropmax'"):
        _ = lastlayer.dropmax
