"""What training changes of the whole process: undone afterward, but for the memory it keeps."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lastlayer._random import kept_generators

# From malloc.h; the threshold is the largest that glibc accepts.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024


@contextmanager
def guarded_process() -> Iterator[None]:
    """Silence what Lightning says about itself and undo what it sets for the whole process."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    deterministic = torch.are_deterministic_algorithms_enabled()
    filling: Any = torch.utils.deterministic  # the stub does not know its one setting
    filled = filling.fill_uninitialized_memory
    # Deterministic kernels suffice; filling fresh memory as well only costs time.
    filling.fill_uninitialized_memory = False
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_interrupt = signal.getsignal(signal.SIGINT)
    logger.setLevel(logging.WARNING)
    try:
        with kept_generators(), warnings.catch_warnings():
            # Lightning calls a helper that torch deprecates; nothing a user could change.
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
            # A resumed run finds its own checkpoints there.
            warnings.filterwarnings("ignore", r"Checkpoint directory .* is not empty", UserWarning)
            yield
    except SystemExit as stop:
        # Lightning makes an exit of an interrupt, and has the next one ignored.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise
    finally:
        logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic)
        filling.fill_uninitialized_memory = filled
        if in_main_thread and on_interrupt is not None:
            signal.signal(signal.SIGINT, on_interrupt)


def tune_allocator() -> bool:
    """Let the C library keep freed blocks of up to 32 MiB for the next step; whether it does.

    A training step frees and asks for the same large blocks again. By default glibc maps each of
    them anew, and the page faults cost up to a fifth of a small network's step on the CPU. Memory
    in use does not grow, but memory once used is kept until the process ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    taken = mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    return bool(taken and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
