"""Running label counts under DistributedDataParallel: two gloo processes on one machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lastlayer.heads import SampledSoftmax
from lastlayer.losses import SampledSoftmaxLoss

D, K = 4, 5
STEPS = [  # labels of either process in each step
    ([0, 0, 1], [4, -100, 4]),
    ([2, -100, -100], [4, 3, 2]),
    ([1, 1, 1], [0, 0, 4]),
]


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    head = DistributedDataParallel(SampledSoftmax(D, K, num_samples=2, proposal="learned"))
    loss = SampledSoftmaxLoss(2, "learned", K)
    for step, labels in enumerate(STEPS):
        target, features = torch.tensor(labels[rank]), torch.randn(3, D)
        if step == 0:  # gradients are accumulated
            with head.no_sync():
                head(features, target).loss.backward()
        else:
            head(features, target).loss.backward()
        loss(torch.randn(3, K, requires_grad=True), target).backward()
    torch.save([head.module.label_count, loss.label_counts], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_count_the_labels_of_both(tmp_path: Path) -> None:
    # This file is the program of both: a spawned function would have to be importable there.
    commands = [[sys.executable, __file__, str(rank), str(tmp_path)] for rank in (0, 1)]
    processes = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    labels = torch.tensor(STEPS).flatten()
    expected = 1 + torch.bincount(labels[labels >= 0], minlength=K)
    for rank in (0, 1):
        for counts in torch.load(tmp_path / f"{rank}.pt"):
            assert torch.equal(counts, expected)


if __name__ == "__main__":
    _work(int(sys.argv[1]), sys.argv[2])
