"""Regularizers under DistributedDataParallel: two gloo processes on one machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lastlayer.regularizers import insert, inserted


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(2)
    )
    network(torch.zeros(1, 3, 8, 8))
    insert(network, "disout", where="0", p=0.3, block_size=3)
    insert(network, "variational-dropout", where="2", num_examples=10)
    model = DistributedDataParallel(network)
    found = {}
    for seed in ("own", "common"):
        torch.manual_seed(rank if seed == "own" else 7)
        seen = {}
        handle = network[1].register_forward_pre_hook(lambda m, i, s=seen: s.update(x=i[0]))
        model.zero_grad()
        loss = model(torch.ones(4, 3, 8, 8)).square().mean()
        loss = loss + sum(r.penalty() for _, r in inserted(network))
        loss.backward()
        handle.remove()
        found[seed] = {
            "behind": seen["x"].detach(),
            "gradients": [p.grad for p in network.parameters()],
        }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_masks_follow_each_processs_seed_and_gradients_are_shared(tmp_path: Path) -> None:
    # This file is the program of both: a spawned function would have to be importable there.
    commands = [[sys.executable, __file__, str(rank), str(tmp_path)] for rank in (0, 1)]
    processes = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    errors = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for seed in ("own", "common"):
        ours, theirs = first[seed]["gradients"], second[seed]["gradients"]
        assert all(gradient is not None for gradient in ours)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(first["common"]["behind"], second["common"]["behind"])
    assert not torch.equal(first["own"]["behind"], second["own"]["behind"])


if __name__ == "__main__":
    _work(int(sys.argv[1]), sys.argv[2])
