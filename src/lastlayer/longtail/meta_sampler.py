"""The Meta Sampler: sampling rates of the classes, learned for the loss on balanced data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lastlayer._checks import check_positive
from lastlayer._inputs import Inputs
from lastlayer.functional.class_priors import as_class_counts
from lastlayer.functional.meta_sampling import (
    RelaxedDraw,
    class_log_prob,
    draw_classes,
    initial_rate_logits,
    rate_weights,
)
from lastlayer.functional.numerics import at_least_float32
from lastlayer.longtail.virtual_step import virtual_meta_loss
from lastlayer.losses.class_counts import ExactBuffers, whole_if_possible


class MetaSampler(ExactBuffers):
    r"""Learn how often each class is drawn, so that the head does well on balanced data.

    Class c has a rate :math:`\sigma(\psi_c)` and is drawn with probability
    :math:`p_c \propto n_c \, \sigma(\psi_c)`. After every draw one meta step moves :math:`\psi`
    down the gradient of

    .. math:: L\Bigl(\theta - \eta \nabla_\theta \tfrac1B \sum_i w_i(\psi) \, \ell_i(\theta)\Bigr)

    with :math:`\ell` the head's own training loss and L the plain cross-entropy on a class-balanced
    meta batch. The weights are 1, with the gradient of the draw (:meth:`draw`: the Meta Sampler),
    or the classes' rates (:meth:`weights`: the Meta Reweighter). It works with any head; with
    balanced softmax it is Balanced Meta-Softmax.

    The published sampler trains the head only, on the features of a frozen backbone, takes its meta
    batches (512 examples) from the training set with every class equally likely, and follows each
    meta step by a step of the head on the same batch. What it saves (``state_dict``) holds Adam's
    moments too, all of it tensors.

    Args:
        class_counts: (K,) training examples of every class, above 0.
        lr: learning rate of the rates' Adam, above 0.
        betas: Adam's decay rates.
        temperature: of the relaxed draw, above 0.
        initial_power: p, at least 0: the rates begin at a power -p of the class frequencies, as
            :func:`lastlayer.functional.meta_sampling.initial_rate_logits` has it; 0 for 1/2 each.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from lastlayer.heads import Softmax
        >>> sampler, head = MetaSampler([90, 10]), Softmax(in_features=4, num_classes=2)
        >>> classes, weights = sampler.draw(8)  # and examples of these classes, here any:
        >>> features, meta_features, meta_target = torch.randn(8, 4), torch.eye(4), classes[:4]
        >>> loss = sampler.meta_step(
        ...     head, features, classes, weights, meta_features, meta_target, lr=0.1
        ... )
        >>> sampler.rates().shape
        torch.Size([2])

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
    """

    class_counts: Tensor

    def __init__(
        self,
        class_counts: Tensor | Sequence[int],
        *,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        temperature: float = 1.0,
        initial_power: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        counts = as_class_counts(class_counts, offers_mask=False)
        self.temperature, self.initial_power = temperature, initial_power
        self.register_buffer("class_counts", whole_if_possible(counts).clone())
        self.rate_logits = nn.Parameter(initial_rate_logits(counts, initial_power).float())
        self.adam = OwnAdam(self.rate_logits, lr=lr, betas=betas)

    def draw(
        self,
        num_draws: int,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> RelaxedDraw:
        """Draw the classes of a batch; see ``lastlayer.functional.meta_sampling.draw_classes``."""
        return draw_classes(
            self.rate_logits,
            self.class_counts,
            num_draws,
            temperature=self.temperature,
            noise=noise,
            generator=generator,
        )

    def weights(self, target: Tensor) -> Tensor:
        """Return (B,) weights of sum B by the rates of the (B,) labels, with their gradient."""
        return rate_weights(self.rate_logits, target)

    def meta_step(
        self,
        module: nn.Module,
        inputs: Inputs,
        target: Tensor,
        weights: Tensor,
        meta_inputs: Inputs,
        meta_target: Tensor,
        *,
        lr: float,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Move the rates by one step of their Adam; the module stays as it is.

        Args:
            module: a head (inputs are features), or a classifier. Whatever of it requires a
                gradient takes the virtual step.
            inputs: (B, D) features of the batch, or a classifier's inputs, B rows each: a tensor, a
                tuple of them for several arguments, a mapping of names to them for keywords.
            target: (B,) int64 labels.
            weights: (B,) what :meth:`draw` or :meth:`weights` returned.
            meta_inputs: as ``inputs``, with M rows, of a class-balanced draw.
            meta_target: (M,) int64 labels.
            lr: step size of the virtual step, as a rule the current one of the module's optimizer.
            generator: source of a stochastic head's draws; the default generator if None.

        Returns:
            The meta batch's loss after the virtual step, without gradient.

        Raises:
            TypeError: if inputs are neither tensors nor made of them.
            ValueError: if the weights do not depend on the rates, or a shape does not fit.
            FloatingPointError: if the rates' gradient is not finite.
        """
        if not weights.requires_grad:
            raise ValueError("weights must be what draw() or weights() returned, with its gradient")
        loss = virtual_meta_loss(
            module, inputs, target, weights, meta_inputs, meta_target, lr=lr, generator=generator
        )
        (gradient,) = torch.autograd.grad(loss, [self.rate_logits])
        if not bool(torch.isfinite(gradient).all()):
            raise FloatingPointError(
                "the gradient of the sampling rates is not finite (meta loss "
                f"{float(loss.detach()):g}); try a smaller learning rate"
            )
        self.adam.step(self.rate_logits, gradient)
        return loss.detach()

    def rates(self) -> Tensor:
        """Return the (K,) rates, without gradient."""
        return self.rate_logits.detach().sigmoid()

    def class_prob(self) -> Tensor:
        """Return the (K,) probabilities with which the classes are drawn, without gradient."""
        return class_log_prob(self.rate_logits.detach(), self.class_counts).exp()

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"num_classes={len(self.class_counts)}, temperature={self.temperature}, "
            f"initial_power={self.initial_power}"
        )


class OwnAdam(ExactBuffers):
    """Torch's Adam for the one parameter that a module learns by itself.

    An optimizer that a module held would keep the parameter that it was built with and hide its
    moments from whatever handles modules. Here the parameter is given at every step, and the
    moments are buffers: casts, copies, ``load_state_dict(assign=True)``, safetensors and
    distributed checkpoints take them along. They stay in float32 where the parameter is in half
    precision, in which small gradients would have no square. ``lr`` is the next step's.

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
