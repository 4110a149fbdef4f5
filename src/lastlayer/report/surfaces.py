"""What dropping classes does to a softmax: the probability of a third class, as surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lastlayer.report.style import Array, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS = ((1.0, 1.0), (0.1, 0.9), (0.9, 0.1), (0.1, 0.1))


def surface(p1: float, p2: float, *, points: int = 61, mean: bool = False, seed: int = 0) -> Array:
    r"""Probability of a retained class with logit 0 beside two classes that may be dropped.

    .. math:: \frac{1}{1 + z_1 e^{o_1} + z_2 e^{o_2}},\quad z_j \sim \mathrm{Bernoulli}(p_j)

    with a fresh pair of masks at each grid point, or its mean over the masks. Both logits run over
    [-3, 3]; rows of the (points, points) result are o1, columns o2.

    >>> round(float(surface(1.0, 1.0)[0, 0]), 3)  # plain softmax at (-3, -3)
    0.909
    """
    if not (0 <= p1 <= 1 and 0 <= p2 <= 1):
        raise ValueError(f"retain probabilities must lie in [0, 1]; got {p1!r}, {p2!r}")
    if points < 2:
        raise ValueError(f"points must be at least 2; got {points!r}")
    logits = np.linspace(-3, 3, points)
    odds1, odds2 = np.exp(logits)[:, None], np.exp(logits)[None, :]
    if mean:
        masks = ((z1, z2) for z1 in (0, 1) for z2 in (0, 1))
        weighted = [
            (p1 if z1 else 1 - p1) * (p2 if z2 else 1 - p2) / (1 + z1 * odds1 + z2 * odds2)
            for z1, z2 in masks
        ]
        return np.asarray(sum(weighted))
    uniform = np.random.default_rng(seed).random((2, points, points))
    return np.asarray(1 / (1 + (uniform[0] < p1) * odds1 + (uniform[1] < p2) * odds2))


def contour_surfaces(
    retain_pairs: Sequence[tuple[float, float]] = PAIRS,
    *,
    points: int = 61,
    mean: bool = False,
    seed: int = 0,
) -> Figure:
    """The surfaces of ``surface`` side by side; (1, 1) is the plain softmax.

    Args:
        retain_pairs: (p1, p2) of each panel, in [0, 1].
        points: grid points per axis.
        mean: draw expectations instead of one mask per grid point.
        seed: seed of the masks.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if ``retain_pairs`` is empty or a probability is outside [0, 1].

    Source: Lee et al., DropMax (2018), Figure 2 of the first version.

    >>> len(contour_surfaces(points=11).axes)
    4
    """
    if not retain_pairs:
        raise ValueError("retain_pairs must not be empty")
    heights = [surface(p1, p2, points=points, mean=mean, seed=seed) for p1, p2 in retain_pairs]
    logits = np.linspace(-3, 3, points)
    first, second = np.meshgrid(logits, logits, indexing="ij")
    with style():
        figure = new_figure(2.9 * len(retain_pairs), 3.3)
        for index, ((p1, p2), height) in enumerate(zip(retain_pairs, heights, strict=True)):
            axes = figure.add_subplot(1, len(retain_pairs), index + 1, projection="3d")
            axes.plot_surface(
                first,
                second,
                height,
                cmap="viridis",
                vmin=0,
                vmax=1,
                rcount=points,
                ccount=points,
                linewidth=0,
                antialiased=False,
                rasterized=True,  # thousands of facets would make a huge SVG
            )
            axes.view_init(elev=28, azim=35)
            softmax = p1 == p2 == 1
            axes.set(
                title="softmax" if softmax else f"$p_1$ = {p1:g}, $p_2$ = {p2:g}",
                xlabel="logit $o_1$",
                ylabel="logit $o_2$",
                xticks=(-3, 0, 3),
                yticks=(-3, 0, 3),
                zticks=(0, 0.5, 1),
                zlim=(0, 1),
            )
        figure.supxlabel("height: probability of a third class, retained, with logit 0", fontsize=9)
    return figure
