"""Writes the IDX format."""

from __future__ import annotations

import struct

import numpy as np


def idx_bytes(array: np.ndarray, *, kind: int = 8) -> bytes:
    """Return an IDX file: magic, sizes, values."""
    header = struct.pack(">BBBB", 0, 0, kind, array.ndim)
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return header + sizes + array.astype(np.uint8).tobytes()
