"""A folder of objects at a URL: every object is whole or absent, and one of several who create a name succeeds.

S3 and everything that speaks its protocol promise this themselves (PUT is atomic, `If-None-Match: *` refuses a name
that is taken); for `file:` URLs it is done here by rename and link. Any other file system that fsspec knows can be
named too; it keeps these promises as far as its `pipe_file(mode="create")` does.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from capo_core.durable_files import create_file_atomically, write_file_atomically
from capo_core.errors import StoreError

# A user, a password or options in the URL would end up in logs.
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^@?#*\[\]\s]+")
_PRECONDITION_FAILED, _CONFLICT = 412, 409
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60}}}
_ADVICE = {
    "s3": "check that the bucket is there, AWS_ENDPOINT_URL (if it is not Amazon's), and that AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY may list, read and write it",
    "file": "check that the folder is there (mounted, if it is shared) and may be written",
}


class _AtomicLocalFileSystem(LocalFileSystem):
    """Local files whose puts are as atomic as an object store's."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        put = create_file_atomically if mode == "create" else write_file_atomically
        put(Path(self._strip_protocol(path)), value)

    def put_file(self, path1: str, path2: str, callback: Any = None, **kwargs: Any) -> None:
        self.pipe_file(path2, Path(path1).read_bytes())


@dataclass(frozen=True)
class Entry:
    """What is known of an object without reading it: its size, and when it was written in seconds since 1970.

    One of which the backend does not say when it was written counts as new for ever.
    """

    n_bytes: int
    modified: float


class ObjectFolder:
    """Objects by name (`adapter/0f…/manifest.json`) under one URL.

    Every method raises a StoreError that names the object and what to check where the backend fails.
    """

    def __init__(self, url: str) -> None:
        """Reach what is at the URL.

        Raises:
            StoreError: if it is no URL, or what it names is not there or cannot be reached.
        """
        if not _URL.fullmatch(url):
            raise StoreError("CAPO_ARTIFACTS: write s3://bucket/prefix or file:///folder, without a user or options")
        self.url = url.rstrip("/")
        self._protocol = url.partition("://")[0]
        self._fs: Any  # fsspec's declared types are wider than what its file systems return
        self._fs, self._root = self._open()
        with self._explaining("reach", ""):
            self._look()

    def _open(self) -> tuple[AbstractFileSystem, str]:
        if self._protocol == "file":
            fs = _AtomicLocalFileSystem(auto_mkdir=True)
            return fs, str(fs._strip_protocol(self.url))
        try:
            # Other machines write too, so nothing that was listed once is believed twice.
            options = {"use_listings_cache": False, "skip_instance_cache": True}
            return url_to_fs(self.url, **options, **_OPTIONS.get(self._protocol, {}))
        except (ImportError, ValueError) as error:
            advice = "pip install 'capo[s3]'" if self._protocol == "s3" else "pip install what fsspec says it needs"
            raise StoreError(f"CAPO_ARTIFACTS={self.url}: {error}; {advice}") from error

    def _look(self) -> None:
        """Raise whatever error the backend has for a place that is not there."""
        if self._protocol != "file":
            self._fs.find(f"{self._root}/leases")  # a short list
        elif not self._fs.isdir(self._root):
            raise FileNotFoundError("it does not exist")  # made here, it would hide a share that is not mounted

    # -- objects ------------------------------------------------------------------------------------------------

    def place(self, name: str) -> str:
        """Return an object's URL."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return an object's content, None if there is no such object."""
        with self._explaining("read", name):
            try:
                return self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, in place of one that is there."""
        with self._explaining("write", name):
            self._fs.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one of this name, and return whether it was written."""
        with self._explaining("write", name):
            for last in (False, False, True):
                try:
                    self._fs.pipe_file(self._path(name), content, mode="create")
                    break
                except FileExistsError:
                    return False
                except OSError as error:
                    if _status(error) == _PRECONDITION_FAILED:
                        return False
                    # S3's "conflict": two puts met and neither counted; it asks to try again.
                    if last or _status(error) != _CONFLICT:
                        raise
            return True

    def upload(self, name: str, path: Path) -> None:
        """Write a file as an object, in place of one that is there."""
        with self._explaining("write", name):
            self._fs.put_file(str(path), self._path(name))

    def download(self, name: str, path: Path) -> bool:
        """Write an object to a file and return True, or return False if there is no such object."""
        with self._explaining("read", name):
            try:
                self._fs.get_file(self._path(name), str(path))
            except FileNotFoundError:
                return False
            return True

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the size in bytes of every object under a folder's name, by name and sorted."""
        entries = self.entries(prefix)
        return {name: entry.n_bytes for name, entry in entries.items() if not _is_hidden(name)}

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Return what the backend says of every object under a folder's name, by name and sorted.

        Where objects are files, those that are just being written are among them, under hidden names.
        """
        with self._explaining("list", prefix):
            found = self._fs.find(self._path(prefix), detail=True)
        # Of a folder that is empty now, some servers list the folder itself.
        below = {path: entry for path, entry in sorted(found.items()) if path.startswith(f"{self._path(prefix)}/")}
        return {self._name(path): Entry(int(entry["size"]), _modified(entry)) for path, entry in below.items()}

    def read_many(self, names: list[str]) -> dict[str, bytes]:
        """Return the contents of several objects by name, read beside each other, those that are gone left out."""
        with self._explaining("read", ""):
            found = self._fs.cat([self._path(name) for name in names], on_error="return") if names else {}
            contents = {}
            for path, content in found.items():
                if isinstance(content, Exception):
                    if not isinstance(content, FileNotFoundError):
                        raise content
                else:
                    contents[self._name(path)] = content
        return contents

    def copy(self, name: str, new_name: str) -> None:
        """Copy an object, if it is there, without fetching it."""
        with self._explaining("copy", name):
            try:
                self._fs.cp_file(self._path(name), self._path(new_name))
            except FileNotFoundError:
                return

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with self._explaining("delete", name):
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self._root}/")

    def try_out(self) -> bool:
        """Write, read and delete an object; return whether a name that is taken is refused, as it should be."""
        name = f"probes/{uuid.uuid4().hex}"
        self.write(name, b"probe")
        try:
            is_refused = not self.create(name, b"again")
            if self.read(name) is None:
                raise StoreError(f"{self.place(name)}: was written and cannot be found; the store is not consistent")
        finally:
            self.delete(name)
        return is_refused

    @contextmanager
    def _explaining(self, verb: str, name: str) -> Iterator[None]:
        """Turn whatever the backend raises into an error that says what to do; backends share no base class."""
        try:
            yield
        except Exception as error:
            advice = _ADVICE.get(self._protocol, "check the URL and the credentials in the environment")
            cause = str(error) or type(error).__name__
            place = self.place(name) if name else self.url
            raise StoreError(f"{place}: cannot {verb}: {cause.rstrip('.')}; {advice}") from error


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _modified(entry: Mapping[str, Any]) -> float:
    """Return when an object was written, by what its backend calls that; never, for one that does not say."""
    for field in ("mtime", "LastModified", "last_modified", "updated"):
        value = entry.get(field)
        if value is not None:
            return value.timestamp() if isinstance(value, datetime) else float(value)
    return float("inf")


def _status(error: OSError) -> int | None:
    """Return the HTTP status behind an error of s3fs, which gives a refused condition no type of its own."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode")


@lru_cache(maxsize=8)
def reach(url: str) -> ObjectFolder:
    """Return the folder at a URL, reached once in a process."""
    return ObjectFolder(url)
