"""A turn that one of several machines has: an object that its holder keeps touching.

It saves computing the same twice and nothing rests on it: results are stored by content, and the first one finished
stands (`shared_results`). So no clocks are compared and no fencing is needed. Whoever waits takes the turn once
the object has not changed for LEASE_SECONDS by the waiter's own clock, because then its holder is dead or cut off.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from capo_core.errors import StoreError
from tasks.storage.object_folder import ObjectFolder

LEASE_SECONDS = 60.0
_POLL_SECONDS = 2.0


@contextmanager
def hold_turn(objects: ObjectFolder, key: str, *, lease_seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Run the body while no other machine runs one for the same key, after waiting as long as that takes.

    Args:
        objects: where the machines meet.
        key: what is computed.
        lease_seconds: how long a holder may stay silent.
    """
    name, holder = f"leases/{key}", uuid.uuid4().hex
    while not objects.create(name, f"{holder} 0".encode("ascii")):
        _wait_until_free(objects, name, lease_seconds)
    done = threading.Event()
    beat = threading.Thread(target=_keep, args=(objects, name, holder, done, lease_seconds / 4), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        # Out of reach now: the next one waits until the lease has run out.
        with suppress(StoreError):
            if (objects.read(name) or b"").startswith(holder.encode("ascii")):
                objects.delete(name)


def _wait_until_free(objects: ObjectFolder, name: str, lease_seconds: float) -> None:
    """Wait until a lease is given back; one that stood still for `lease_seconds` is removed."""
    seen, since = objects.read(name), time.monotonic()
    while seen is not None:
        if time.monotonic() - since >= lease_seconds:
            objects.delete(name)
            return
        time.sleep(min(_POLL_SECONDS, lease_seconds / 4))
        found = objects.read(name)
        if found != seen:
            seen, since = found, time.monotonic()


def _keep(objects: ObjectFolder, name: str, holder: str, done: threading.Event, beat_seconds: float) -> None:
    """Change a lease every few seconds, so that those who wait see that its holder lives."""
    n_beats = 0
    while not done.wait(beat_seconds):
        n_beats += 1
        with suppress(StoreError):  # a beat missed; the next one may pass
            objects.write(name, f"{holder} {n_beats}".encode("ascii"))
