"""Memory that a step leaves behind: models in reference cycles, and freed blocks that the allocator keeps."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from threading import Lock
from typing import Any

_LIBRARIES = ("torch", "transformers.trainer", "peft")
_LOADING = Lock()


def returns_memory(body: Callable[..., Any]) -> Callable[..., Any]:
    """Return `body`, which runs models, so that it leaves none of them in memory behind."""

    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        _load_libraries()
        try:
            return body(*args, **kwargs)
        finally:
            give_memory_back()

    return run


def _load_libraries() -> None:
    """Import what models need and spare it from garbage collection: once in a process, before it holds a model.

    The libraries are some 700 thousand objects that live as long as the process. Looking through them took half a
    second after every step, and as much wherever a library collects by itself.
    """
    with _LOADING:
        if gc.get_freeze_count() == 0:
            for library in _LIBRARIES:
                import_module(library)
            gc.collect()
            gc.freeze()


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
