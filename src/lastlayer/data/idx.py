"""The IDX format of MNIST and its successors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lastlayer.data.files import DataFileError, read_bytes

_UNSIGNED_BYTE = 8


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    The header is big-endian: two zero bytes, the type (8: unsigned byte), the number of
    dimensions, then each size in four bytes; the values follow in C order.

    Args:
        path: the file, plain or compressed.
        dimensions: how many dimensions it must have.

    Returns:
        The array.

    Raises:
        DataFileError: if the header or the length is not what it should be.
    """
    content = read_bytes(path)
    expected = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if content[:4] != expected:
        raise DataFileError(
            f"{path}: expected an IDX file of unsigned bytes with {dimensions} dimensions "
            f"(magic {expected.hex()}); found magic {content[:4].hex() or 'nothing'}"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataFileError(f"{path}: the header ends after {len(content)} of {start} bytes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    found, wanted = len(content) - start, math.prod(shape)
    if found != wanted:
        raise DataFileError(
            f"{path}: the header promises {' x '.join(map(str, shape))} = {wanted} bytes; "
            f"found {found}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
