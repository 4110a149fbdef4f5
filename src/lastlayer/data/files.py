"""Finding and opening data files, compressed or not, with errors that name file and remedy."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = ("", ".gz", ".xz", ".bz2")


class DataFileError(ValueError):
    """A data file that is corrupt or not what it should be; the message names the file."""


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path``, unpacked if its first bytes say gzip, xz or bzip2."""
    content = path.read_bytes()
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if content.startswith(b"\xfd7zXZ\x00"):
            return lzma.decompress(content)
        if content.startswith(b"BZh"):
            return bz2.decompress(content)
    except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataFileError(
            f"{path}: the compressed data are truncated or corrupt ({error}); fetch the file again"
        ) from error
    return content


def require_data_dir(data_dir: Path | None, name: str, how_to_get: str) -> Path:
    """Return ``data_dir``, or raise if it is None or no folder."""
    if data_dir is None:
        raise ValueError(f"data source {name!r} needs data_dir. {how_to_get}")
    if not data_dir.is_dir():
        raise FileNotFoundError(f"data_dir {data_dir} is not a folder. {how_to_get}")
    return data_dir


def find_file(folder: Path, stems: Sequence[str]) -> Path | None:
    """Return the first file in ``folder`` called as one of ``stems``, compressed or not."""
    for stem in stems:
        for suffix in SUFFIXES:
            path = folder / (stem + suffix)
            if path.is_file():
                return path
    return None


def require_file(folder: Path, stems: Sequence[str], how_to_get: str) -> Path:
    """Return the file that :func:`find_file` finds, or raise ``FileNotFoundError``."""
    path = find_file(folder, stems)
    if path is None:
        raise FileNotFoundError(f"{folder} has no file {stems[0]}. {how_to_get}")
    return path


def find_folder(folders: Sequence[Path], stems: Sequence[str], how_to_get: str) -> Path:
    """Return the first of ``folders`` that holds a file called as one of ``stems``, or raise."""
    for folder in folders:
        if find_file(folder, stems) is not None:
            return folder
    listed = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"none of {', '.join(stems)} (plain or with {', '.join(SUFFIXES[1:])}) in: {listed}. "
        f"{how_to_get}"
    )
