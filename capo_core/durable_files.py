"""Files that are whole or not there: written under a temporary name, fsynced, then given their own."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_file_atomically(path: Path, content: bytes) -> None:
    """Write `content` under `path` by way of a temporary name in the same folder, fsync and rename."""
    _write_aside(path, content).replace(path)
    sync(path.parent)


def create_file_atomically(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write `content` under `path`, of several that try at once one only.

    Args:
        path: the file.
        content: all of it.
        mode: permissions, less the process's umask; the file never has more.

    Raises:
        FileExistsError: if there is such a file.
    """
    temporary = _write_aside(path, content, mode)
    try:
        # Unlike a rename, a link refuses a name that is taken.
        os.link(temporary, path)
    finally:
        temporary.unlink()
    sync(path.parent)


def _write_aside(path: Path, content: bytes, mode: int = 0o666) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
        handle.write(content)
    sync(temporary)
    return temporary


def sync(path: Path) -> None:
    """fsync a file or a folder, so that a rename after it never shows content that is not on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
