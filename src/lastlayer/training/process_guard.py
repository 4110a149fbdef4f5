"""The training engine kept within bounds: quiet, and without a trace in the process."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lastlayer._random import kept_generators


@contextmanager
def contained_engine() -> Iterator[None]:
    """Silence what the engine says about itself and undo what it sets for the whole process."""
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
            # The engine calls a helper that torch deprecates; nothing a user could change.
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
            # A resumed run finds its own checkpoints there.
            warnings.filterwarnings("ignore", r"Checkpoint directory .* is not empty", UserWarning)
            yield
    except SystemExit as stop:
        # The engine makes an exit of an interrupt, and has the next one ignored.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise
    finally:
        logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic)
        filling.fill_uninitialized_memory = filled
        if in_main_thread and on_interrupt is not None:
            signal.signal(signal.SIGINT, on_interrupt)
