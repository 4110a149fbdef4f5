"""Adam for one parameter, with its moments where a module's numbers belong: among its buffers."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_positive
from lastlayer.functional.numerics import at_least_float32
from lastlayer.losses.class_counts import ExactBuffers


class OwnAdam(ExactBuffers):
    """Torch's Adam for the one parameter that a module learns by itself.

    An optimizer that a module held would keep the parameter that it was built with and hide its
    moments from whatever handles modules. Here the parameter is given at every step, and the
    moments are buffers: casts, copies, ``load_state_dict(assign=True)``, safetensors and
    distributed checkpoints take them along. They stay in float32 where the parameter is in half
    precision, in which small gradients would have no square.

    Args:
        parameter: what is learned; not kept.
        lr: learning rate, above 0.
        betas: decay rates of the moments, in [0, 1).

    Attributes:
        lr: learning rate of the next step.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> parameter = torch.nn.Parameter(torch.zeros(2))
        >>> adam = OwnAdam(parameter, lr=0.5, betas=(0.9, 0.99))
        >>> adam.step(parameter, torch.tensor([1.0, -2.0]))
        >>> parameter.data
        tensor([-0.5000,  0.5000])
    """

    exact_buffers = ("mean", "square")
    num_steps: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, parameter: Tensor, *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__()
        check_positive("lr", lr)
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must lie in [0, 1); got {betas}")
        self.lr, self.betas = lr, betas
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        zeros = torch.zeros_like(at_least_float32(parameter.detach()))
        self.register_buffer("mean", zeros)
        self.register_buffer("square", zeros.clone())

    def step(self, parameter: Tensor, gradient: Tensor) -> None:
        """Move the parameter, in place, by one step down a gradient of its shape."""
        moved = parameter.detach().to(self.mean)  # in half precision a copy, else the parameter
        moved.grad = gradient.to(moved)
        adam = torch.optim.Adam([moved], lr=self.lr, betas=self.betas, foreach=False)
        steps = self.num_steps.float()
        adam.state[moved] = {"step": steps, "exp_avg": self.mean, "exp_avg_sq": self.square}
        adam.step()
        with torch.no_grad():
            parameter.copy_(moved)
        self.num_steps += 1

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"lr={self.lr}, betas={self.betas}"
