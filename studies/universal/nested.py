"""Features trained by the nested H-score beside the modes of dependence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lastlayer.functional import dependence as dp
from universal.common import Found, centred, cosines, legacy_joint, listed, minimise, panel, row


def climb(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Maximise the nested H-score of three functions on an exact joint."""
    generator = torch.Generator().manual_seed(1)
    f, g = (
        torch.randn(size, 3, generator=generator, dtype=torch.float64).requires_grad_()
        for size in joint.shape
    )
    minimise(lambda: -dp.nested_h_score(f, g, joint=joint), [f, g])
    return f.detach(), g.detach()


def nested() -> Found:
    joint = legacy_joint(20230606, 8, 6)
    modes = dp.dependence_modes(joint)
    maximum = float(0.5 * (torch.tensor([3.0, 2, 1]) * modes.sigma[:3].square()).sum())
    generator = torch.Generator().manual_seed(0)
    pairs = torch.multinomial(joint.flatten(), 30_000, replacement=True, generator=generator)
    f = (0.1 * torch.randn(8, 3, generator=generator)).requires_grad_()
    g = (0.1 * torch.randn(6, 3, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([f, g], lr=1e-3, fused=True)
    for _ in range(100):
        for batch in torch.split(pairs[torch.randperm(30_000, generator=generator)], 128):
            loss = -dp.nested_h_score(f[batch // 6], g[batch % 6])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    exact_f, exact_g = climb(joint)
    exact = dp.nested_h_score(exact_f, exact_g, joint=joint)
    sampled = dp.dependence_modes(dp.joint_table(pairs // 6, pairs % 6))
    p_x, p_y = joint.sum(1), joint.sum(0)
    learned = [(f.detach().double(), modes.f, p_x), (g.detach().double(), modes.g, p_y)]
    value = float(dp.nested_h_score(learned[0][0], learned[1][0], joint=joint))
    rows = [
        row("singular values", listed(modes.sigma, 6), ".400022 .317625 .290890 .156563 .023045"),
        row("LBFGS on the exact joint: nested H-score", f"{float(exact):.6f}", f"{maximum:.6f}"),
        row("LBFGS on the exact joint: cosines of f1 to f3", cosines(exact_f, modes.f, p_x), "1"),
        row("Adam on samples: nested H-score of the joint", f"{value:.6f}", f"to {maximum:.6f}"),
    ]
    panels, spreads = [], []
    for name, (functions, theory, prob) in zip("fg", learned, strict=True):
        functions = centred(functions, prob)
        spread = (prob @ functions.square()).sqrt()
        functions, theory = functions / spread, theory[:, :3]
        sign = (prob @ (functions * theory)).sign()
        of_samples = sampled.f if name == "f" else sampled.g
        what = f"Adam on samples: cosines of {name}1 to {name}3 with the modes of the"
        rows.append(row(f"{what} joint", cosines(functions, theory, prob), "near 1"))
        rows.append(row(f"{what} samples' table", cosines(functions, of_samples, prob), "1"))
        panels.append(panel(f"{name}1 to {name}3", functions * sign, theory))
        spreads.append(spread)
    products = spreads[0] * spreads[1]
    rows.append(row("Adam on samples: std f std g", listed(products), listed(modes.sigma[:3])))
    rows.append(row("singular values of the samples' table", listed(sampled.sigma[:3]), ""))
    panels.append(panel("std f std g and singular values", products, modes.sigma[:3]))
    return {"rows": rows, "panels": panels}


def feature_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(1, 64),
        nn.BatchNorm1d(64),
        nn.Softplus(),
        nn.Linear(64, 128),
        nn.BatchNorm1d(128),
        nn.Softplus(),
        nn.Linear(128, 5),
    )


def normal(epochs: int = 80) -> Found:
    torch.manual_seed(0)
    x, noise = torch.randn(2, 50_000)
    y = 0.8 * x + 0.6 * noise
    on_x, on_y = feature_network(), feature_network()
    parameters = [*on_x.parameters(), *on_y.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3, fused=True)
    steps = epochs * 25
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(50_000), 2000):
            score = dp.nested_h_score(on_x(x[rows, None]), on_y(y[rows, None]), stop_gradient=True)
            optimizer.zero_grad()
            (-score).backward()
            optimizer.step()
            schedule.step()
    x, noise = torch.randn(2, 50_000)
    y = 0.8 * x + 0.6 * noise
    with torch.no_grad():
        f, g = (net.eval()(values[:, None]).double() for net, values in ((on_x, x), (on_y, y)))
        grid = torch.linspace(-2.5, 2.5, 101)
        curves = on_x(grid[:, None]).double()
    f_mean, f_std = f.mean(0), f.std(0)
    f, g, curves = (f - f_mean) / f_std, g - g.mean(0), (curves - f_mean) / f_std
    products = f_std * g.std(0)
    even = torch.full((50_000,), 1 / 50_000, dtype=torch.float64)
    hermite = [np.polynomial.hermite_e.HermiteE.basis(i) for i in range(1, 6)]
    norms = [np.sqrt(float(np.prod(range(1, i + 1)))) for i in range(1, 6)]
    at = [torch.tensor(h(x.double().numpy()) / n) for h, n in zip(hermite, norms, strict=True)]
    theory = torch.stack(
        [torch.tensor(h(grid.double().numpy()) / n) for h, n in zip(hermite, norms, strict=True)], 1
    )
    sign = torch.stack([(f[:, i] * at[i]).mean().sign() for i in range(5)])
    correlation = (f * g / g.std(0)).mean(0)
    rows = [
        row("epochs of 50 000 pairs", str(epochs), "400"),
        row("std f std g", listed(products), ".8 .64 .512 .4096 .3277"),
        row("correlation of f and g, held out", listed(correlation), ".8 .64 .512 .4096 .3277"),
        row("cosines with Hermite polynomials", cosines(f, torch.stack(at, 1), even), "1"),
    ]
    panels = [panel(f"f{i + 1}", curves[:, i] * sign[i], theory[:, i], grid) for i in range(5)]
    return {"rows": rows, "panels": panels}
