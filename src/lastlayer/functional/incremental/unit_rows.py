"""Rows of length 1, and rows of zeros, which have no direction."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.functional.numerics import at_least_float32


def unit_rows(rows: Tensor) -> Tensor:
    r"""Divide every row by its Euclidean norm; a row of zeros stays, with gradient 0.

    .. math:: u_i = f_i / \lVert f_i \rVert_2

    Args:
        rows: (*, D) with D >= 1; half precision is computed in float32.

    Returns:
        (*, D) in float32 or float64.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    rows = at_least_float32(rows)
    # Scaled first, so that no square leaves the range of the dtype.
    peak = rows.detach().abs().amax(dim=-1, keepdim=True)
    scaled = rows / torch.where(peak > 0, peak, 1.0)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    # A row of zeros is cut from the gradient; one of NaN stays NaN.
    return torch.where(peak == 0, 0.0, scaled / torch.where(norm > 0, norm, 1.0))
