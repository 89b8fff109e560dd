"""A folder that appears complete or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capo_core.durable_files import sync
from capo_core.errors import ReleaseError


def require_new(target: Path) -> None:
    """Raise ReleaseError if the target is there already and is anything but an empty folder."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise ReleaseError(f"{target}: is there already; name a new folder, or an empty one, as --out")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill, which gets its name when the block ends well and goes away when it does not.

    Args:
        target: the name; its parents are made if need be.

    Raises:
        ReleaseError: if the target is there already and is anything but an empty folder.
    """
    require_new(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            sync(path)
        try:
            temporary.rename(target)
        except OSError as error:
            raise ReleaseError(f"{target}: cannot be written: {error.strerror}") from error
        sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
