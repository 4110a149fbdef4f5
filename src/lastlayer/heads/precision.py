"""Heads compute in full precision, whatever runs around them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(features: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast, if it is on, is off for the device of ``features``."""
    device_type = features.device.type
    # Not torch.amp.is_autocast_available(), which torch 2.10 cannot compile.
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type=device_type, enabled=False)
    return nullcontext()
