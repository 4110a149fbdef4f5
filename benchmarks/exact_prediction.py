"""Exact expectations of DropMax against Monte Carlo over masks: time and error.

Run ``python benchmarks/exact_prediction.py``. Logits are normal with standard deviation 3 and the
target 6 above; retain probabilities are about 0.22, the target's 0.78 (the fixed points of
DropMax's objective). Every round times all calls in turn. ``lean masks`` is Monte Carlo with
nothing but float32 products and sums, the fastest one known to us; ``monte_carlo_log_prob`` is the
library's, safe at any logits. Errors of Monte Carlo are root mean squares over rows of the
target's probability, those of the quadrature maxima over a grid of random problems against
enumeration of all masks.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from paired import RESULTS, Call, paired_medians, print_table, write_results
from torch import Tensor

from lastlayer.functional.dropmax import masked_log_prob, monte_carlo_log_prob
from lastlayer.functional.dropmax.exact import expected_cross_entropy, expected_log_prob

BATCH = 256
EPS = 1e-20


def typical(batch: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3.0 * torch.randn(batch, num_classes, generator=generator)
    target = torch.randint(num_classes, (batch,), generator=generator)
    retain_logits = torch.randn(batch, num_classes, generator=generator) - 1.25
    rows = torch.arange(batch)
    logits[rows, target] += 6.0
    retain_logits[rows, target] = 1.28
    return logits, retain_logits, target


def lean_masks(logits: Tensor, retain_logits: Tensor, num_samples: int) -> Tensor:
    """Log of the mean of probabilities; float32 products and sums, one mask at a time."""
    weight = (logits - logits.amax(-1, keepdim=True)).exp()
    floor = EPS * weight
    retain_prob = torch.sigmoid(retain_logits)
    total = torch.zeros_like(weight)
    for _ in range(num_samples):
        kept = torch.rand_like(weight).lt(retain_prob).mul(weight).add_(floor)
        total += kept.div_(kept.sum(-1, keepdim=True))
    return total.div_(num_samples).log_()


def prediction_calls(num_classes: int) -> dict[str, Call]:
    o, a, _ = typical(BATCH, num_classes)
    return {
        "expected_log_prob": lambda: expected_log_prob(o, a),
        "expected_log_prob float64": lambda: expected_log_prob(o.double(), a.double()),
        "lean masks, 30": lambda: lean_masks(o, a, 30),
        "lean masks, 100": lambda: lean_masks(o, a, 100),
        "monte_carlo_log_prob, 30": lambda: monte_carlo_log_prob(o, a, num_samples=30),
        "monte_carlo_log_prob, 100": lambda: monte_carlo_log_prob(o, a, num_samples=100),
    }


def training_calls(batch: int, num_classes: int) -> dict[str, Call]:
    o, a, target = typical(batch, num_classes)
    o.requires_grad_()
    a.requires_grad_()

    def step(loss: Tensor) -> None:
        torch.autograd.grad(loss, [o, a], allow_unused=True)

    def marginal() -> None:
        log_prob = expected_log_prob(o, a)
        step(F.nll_loss(log_prob, target))

    return {
        "cross_entropy": lambda: step(F.cross_entropy(o, target)),
        "expected_cross_entropy": lambda: step(expected_cross_entropy(o, a, target).mean()),
        "nll of expected_log_prob": marginal,
    }


def monte_carlo_error(num_classes: int, num_samples: int) -> float:
    o, a, target = typical(BATCH, num_classes)
    generator = torch.Generator().manual_seed(1)
    drawn = monte_carlo_log_prob(o, a, num_samples=num_samples, generator=generator).exp()
    exact = expected_log_prob(o.double(), a.double()).exp()
    return float((drawn - exact).gather(1, target[:, None]).square().mean().sqrt())


def quadrature_errors(dtype: torch.dtype) -> dict[str, float]:
    """Largest absolute errors of probability and cross-entropy, K up to 12."""
    generator = torch.Generator().manual_seed(2)
    worst = {"probability": 0.0, "cross-entropy": 0.0}
    grid = itertools.product(
        ("neurips", "iclr"), (1e-1, 1e-4, 1e-20), (2, 4, 8, 12), (1.0, 10.0, 30.0), (1.0, 5.0, 20.0)
    )
    for form, eps, num_classes, spread, retain_spread in grid:
        shape = (8, num_classes)
        o = (spread * (2 * torch.rand(shape, generator=generator) - 1)).to(dtype)
        a = (retain_spread * (2 * torch.rand(shape, generator=generator) - 1)).to(dtype)
        target = torch.randint(num_classes, (8,), generator=generator)
        prob, loss = enumerated(o.double(), a.double(), target, form, eps)
        ours = expected_log_prob(o, a, form=form, eps=eps).double().exp()
        worst["probability"] = max(worst["probability"], float((ours - prob).abs().max()))
        ours = expected_cross_entropy(o, a, target, form=form, eps=eps).double()
        worst["cross-entropy"] = max(worst["cross-entropy"], float((ours - loss).abs().max()))
    return worst


def enumerated(
    o: Tensor, a: Tensor, target: Tensor, form: str, eps: float
) -> tuple[Tensor, Tensor]:
    """Expected probabilities, and expected cross-entropy with the target kept, by all masks."""
    num_classes = o.shape[-1]
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * num_classes).double()
    log_weight = torch.where(masks.bool(), F.logsigmoid(a)[:, None], F.logsigmoid(-a)[:, None])
    log_prob = masked_log_prob(o[:, None], masks.log()[None], form=form, eps=eps)
    prob = (log_weight.sum(-1, keepdim=True) + log_prob).logsumexp(1).exp()
    hit = F.one_hot(target, num_classes).bool()[:, None]
    log_mask = masks.log()[None].masked_fill(hit, 0.0)
    log_prob = masked_log_prob(o[:, None], log_mask, form=form, eps=eps)
    weight = log_weight.masked_fill(hit, 0.0).sum(-1).exp()
    # Both values of the target's own bit were enumerated.
    return prob, -0.5 * (weight * log_prob.masked_fill(~hit, 0.0).sum(-1)).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS / "exact_prediction.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    errors: dict[str, dict[str, float]] = {
        "quadrature, float64": quadrature_errors(torch.float64),
        "quadrature, float32": quadrature_errors(torch.float32),
    }
    for samples in (30, 100):
        errors[f"Monte Carlo, {samples} masks"] = {
            f"K={k}": monte_carlo_error(k, samples) for k in (10, 100, 1000)
        }
    for name, values in errors.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2g}" for key, value in values.items()))
    with torch.no_grad():
        prediction = {
            f"K={k}": paired_medians(prediction_calls(k), rounds=options.rounds)
            for k in (10, 100, 1000)
        }
    print_table(f"Prediction, {BATCH} rows: time relative to the exact one (ms)", prediction)
    training = {
        f"N={n} K={k}": paired_medians(training_calls(n, k), rounds=3 * options.rounds)
        for n, k in ((50, 10), (128, 100))
    }
    print_table("Forward and backward, relative to cross_entropy (ms)", training)
    results = {"errors": errors, "prediction": prediction, "training": training}
    write_results(options.out, results, batch=BATCH, rounds=options.rounds)


if __name__ == "__main__":
    main()
