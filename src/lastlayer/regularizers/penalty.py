"""The penalties of all regularizers of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lastlayer.regularizers.base import Regularizer


def total_penalty(module: nn.Module) -> Tensor:
    """Sum the penalties of all regularizers in a network, each counted once.

    Args:
        module: the network.

    Returns:
        Nats per example, ``()``, to be added to a loss that is a mean over examples; 0 if there is
        no regularizer or none that learns.

    Example:
        >>> from lastlayer.regularizers import Dropout, VariationalDropout
        >>> total_penalty(nn.Sequential(nn.Linear(3, 2), Dropout(0.5)))
        tensor(0.)
        >>> layer = VariationalDropout(num_features=2, num_examples=100)
        >>> bool(total_penalty(nn.Sequential(layer, layer)) == layer.penalty())
        True
    """
    penalties = [part.penalty() for part in module.modules() if isinstance(part, Regularizer)]
    if penalties:
        return torch.stack(penalties).sum()
    parameter = next(module.parameters(), None)
    return torch.zeros((), device=None if parameter is None else parameter.device)
