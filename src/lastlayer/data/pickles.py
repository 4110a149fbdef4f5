"""Pickles from outside, read without giving them the power to run anything."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lastlayer.data.files import DataFileError, read_bytes


def _encode_latin1(text: str, encoding: str) -> bytes:
    """``codecs.encode`` as Python 3 uses it to store bytes in old pickle protocols, no more."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the pickle asks for the codec {encoding!r}")
    return text.encode("latin1")


# The constructors of arrays, asked of NumPy itself since their home moved between versions.
_reconstruct = np.empty(0).__reduce__()[0]
_from_buffer = np.empty(0).__reduce_ex__(5)[0]

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode_latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, bytes and NumPy arrays; refuses every other name."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module_name}.{global_name}, which a file of arrays does not "
                "need; it was refused and nothing was run"
            ) from None


def read_pickled_dict(path: Path) -> dict[str, Any]:
    """Read a pickled dict of plain values and NumPy arrays, plain or compressed.

    Args:
        path: the file. Python 2 pickles are read too; bytes keys become strings.

    Returns:
        The dict.

    Raises:
        DataFileError: if the file is corrupt, asks for anything but arrays, or holds no dict.
    """
    content = read_bytes(path)
    try:
        loaded = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a corrupt pickle can fail in any way
        raise DataFileError(f"{path}: not a readable pickle of arrays: {error}") from error
    if not isinstance(loaded, dict):
        raise DataFileError(f"{path}: expected a pickled dict; found {type(loaded).__name__}")
    return {as_text(key): value for key, value in loaded.items()}


def as_text(value: object) -> str:
    """Return bytes decoded, anything else as ``str``."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
