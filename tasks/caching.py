"""When a step is computed and when its earlier result stands: keys, locks and the form of stored results.

Prefect's own pieces were each found wanting for steps whose results are files:

* `INPUTS` hashes a path as its string and pickles what it cannot hash; `ContentPolicy` takes content hashes and
  canonical JSON only, and refuses anything else.
* a stored result may name any serializer, pickle included, which would run code planted in the result store;
  `FlockLockManager` sets aside every record that is not a plain artifact reference before Prefect reads it.
* `FileSystemLockManager` waits for ever after its holder is killed; the kernel frees a `flock`.
* a stored result has no checksum; it counts only if it is what the lineage record of its key says, which has one.
* a stored reference whose artifact is gone is no result: `ReferenceSerializer.loads` verifies it, and Prefect
  takes the error for "not cached" and computes again.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.locking.protocol import LockManager
from prefect.serializers import Serializer
from prefect.settings import get_current_settings
from pydantic import BaseModel

from capo_core.errors import DamagedArtifactError
from capo_core.versions import library_versions
from schemas.artifacts import ArtifactRef
from tasks.progress import run_progress
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home, set_aside
from tasks.storage.manifests import canonical_json
from tasks.storage.shared_results import load_result

REFERENCE_SERIALIZER = "capo-reference"
_POLL_SECONDS = 0.05


def identify(value: Any) -> Any:
    """Return what a cache key takes of an argument, as JSON: content hashes of references, values of the rest.

    Raises:
        TypeError: for anything whose content is not plain (a path, a frame, a function).
    """
    if isinstance(value, ArtifactRef):
        return str(value)
    if hasattr(value, "cache_identity"):
        return value.cache_identity()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): identify(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [identify(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a step cannot take a {type(value).__name__}: its content has no stable identity")


def compute_cache_key(name: str, version: int, inputs: Mapping[str, Any], *, uses_models: bool) -> str:
    """Return the cache key of a step: a digest of its name, version, inputs and, if it runs models, the libraries'.

    Args:
        name: the step's name.
        version: the step's declared version, raised whenever its outcome changes for equal inputs.
        inputs: its arguments.
        uses_models: whether it trains or runs a model, so that library versions matter.
    """
    identity = {"step": name, "version": version, "inputs": identify(inputs)}
    if uses_models:
        identity["libraries"] = library_versions()
    return hashlib.sha256(canonical_json(identity).encode("utf-8")).hexdigest()


@dataclass
class ContentPolicy(CachePolicy):
    """Prefect cache policy over `compute_cache_key`."""

    name: str = ""
    version: int = 1
    uses_models: bool = False

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        if task_ctx.task_run.flow_run_id is not None:
            # The one place that sees every step begin, cached or not.
            run_progress(str(task_ctx.task_run.flow_run_id)).begin(self.name)
        return compute_cache_key(self.name, self.version, inputs, uses_models=self.uses_models)


class ReferenceSerializer(Serializer):
    """Stores artifact references as lines of text and refuses everything else, both ways."""

    type: Literal["capo-reference"] = REFERENCE_SERIALIZER

    def dumps(self, obj: Any) -> bytes:
        refs = obj if isinstance(obj, list | tuple) else [obj]
        if not refs or not all(isinstance(ref, ArtifactRef) for ref in refs):
            raise TypeError(f"a step returns artifact references, not {type(obj).__name__}")
        return "\n".join(str(ref) for ref in refs).encode("ascii")

    def loads(self, blob: bytes) -> ArtifactRef | tuple[ArtifactRef, ...]:
        """Return the stored reference, or a tuple of several, each of an artifact that is there and whole.

        Raises:
            ValueError: if `blob` is anything but references.
            DamagedArtifactError: if an artifact is missing or damaged.
        """
        return load_result(ArtifactStore(), blob.decode("ascii").split("\n"))


def results_folder() -> Path:
    """Return the folder in which Prefect keeps results, a file for each cache key."""
    return Path(get_current_settings().results.local_storage_path)


def check_result(store: ArtifactStore, key: str) -> None:
    """Raise unless the result that Prefect keeps for a key is of our form and what its lineage record says.

    Raises:
        DamagedArtifactError: names the file that is wrong.
    """
    path = results_folder() / key
    returned = store.computations.read(key)["returns"]
    try:
        record = json.loads(path.read_bytes())
        is_ours = record["metadata"]["serializer"]["type"] == REFERENCE_SERIALIZER
        if is_ours and record["result"].split("\n") == returned:
            return
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise DamagedArtifactError(f"{path} is not the result of its key; it is computed again when it is asked for")


def set_aside_foreign_result(key: str) -> None:
    """Move a stored result that does not count to `<home>/damaged/`, before Prefect loads it with any serializer."""
    store, path = ArtifactStore(), results_folder() / key
    if not path.is_file():
        return
    try:
        check_result(store, key)
    except DamagedArtifactError:
        set_aside(store.home, path, f"result-{key}")


class FlockLockManager(LockManager):
    """One `flock` per key under `<home>/locks`; the kernel frees it when its holder dies, however it dies."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, int]] = {}
        self._mutex = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> FlockLockManager:
        # `CachePolicy.configure` copies the policy; all copies in a process must share the table of held locks.
        return self

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock of `key`, waiting up to `acquire_timeout` seconds (None: as long as it takes)."""
        if self.is_lock_holder(key, holder):
            return True
        descriptor = os.open(_lock_path(key), os.O_RDWR | os.O_CREAT, 0o600)
        deadline = None if acquire_timeout is None else time.monotonic() + acquire_timeout
        while not _try_flock(descriptor):
            if deadline is not None and time.monotonic() >= deadline:
                os.close(descriptor)
                return False
            time.sleep(_POLL_SECONDS)
        with self._mutex:
            self._held[key] = (holder, descriptor)
        set_aside_foreign_result(key)
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock without blocking the event loop."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Free the lock of `key`.

        Raises:
            ValueError: if `holder` does not hold it.
        """
        with self._mutex:
            if self._held.get(key, ("", -1))[0] != holder:
                raise ValueError(f"{holder!r} does not hold the lock of {key!r}")
            _, descriptor = self._held.pop(key)
        os.close(descriptor)

    def is_locked(self, key: str) -> bool:
        """Return whether any process holds the lock of `key`."""
        descriptor = os.open(_lock_path(key), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            return not _try_flock(descriptor)
        finally:
            os.close(descriptor)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Return whether `holder`, in this process, holds the lock of `key`."""
        with self._mutex:
            return self._held.get(key, ("", -1))[0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until the lock of `key` is free; return False if `timeout` seconds pass first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait for the lock without blocking the event loop."""
        return await asyncio.to_thread(self.wait_for_lock, key, timeout)


def _lock_path(key: str) -> Path:
    folder = capo_home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / hashlib.sha256(key.encode("utf-8")).hexdigest()


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
