"""Memory that a step leaves behind: models in reference cycles, and freed blocks that the allocator keeps."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_memory_back() -> None:
    """Free models that nothing refers to any more, and hand what is free to the system.

    A trained model is part of cycles that the garbage collector alone breaks, and glibc keeps freed blocks between
    those still in use: without this a process grew by half a gigabyte with each training.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
        if trim is not None:
            trim(0)
