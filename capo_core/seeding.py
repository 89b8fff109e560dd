"""Seeds that depend on names, not on order, and random state that is put back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager


def derive_seed(seed: int, *names: str | int | None) -> int:
    """Return a seed in [0, 2^63) that depends on `seed` and every name, and on nothing else.

    The first eight bytes of SHA-256 over the parts, each with its type and length, so that no two lists of names
    run together.
    """
    digest = hashlib.sha256()
    for part in (seed, *names):
        encoded = f"{type(part).__name__}:{part}".encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed the process-wide generators (Python, NumPy, torch) for the block and restore their states after it.

    Libraries that initialise weights or shuffle draw from these generators; the caller's own draws stay untouched.
    """
    import numpy as np
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
