"""The lineage records of this machine, one for each computation, and those of the machines that share its artifacts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from capo_core.durable_files import write_file_atomically
from capo_core.errors import DamagedArtifactError
from tasks.storage.home import set_aside
from tasks.storage.records import open_record, seal_record
from tasks.storage.remote_artifacts import RemoteArtifacts


class Computations:
    """Records by cache key in `<home>/lineage`, copies of other machines' among them."""

    def __init__(self, home: Path, remote: RemoteArtifacts | None) -> None:
        self._home = home
        self._remote = remote

    def path(self, key: str) -> Path:
        """Return the file of a computation's record, whether or not it is there."""
        return self._home / "lineage" / f"{key}.json"

    def keep(self, key: str, record: Mapping[str, JsonValue]) -> None:
        """Keep how a computation went, in place of what was kept."""
        write_file_atomically(self.path(key), seal_record(record))

    def read(self, key: str) -> dict[str, Any]:
        """Return the record that is kept here.

        Raises:
            DamagedArtifactError: if it is missing, of another key, or was changed; names its file.
        """
        path = self.path(key)
        try:
            record = open_record(path.read_bytes(), str(path))
        except OSError as error:
            raise DamagedArtifactError(f"{path} cannot be read ({error.strerror})") from error
        if record.get("key", key) != key:
            raise DamagedArtifactError(f"{path} is the lineage record of another key; delete it, it is computed again")
        return record

    def audit(self, key: str) -> None:
        """Check a record here and where it is shared.

        Raises:
            DamagedArtifactError: if one of them is not whole.
        """
        if self._remote is not None:
            self._remote.read_record(key)
        if self._remote is None or self.path(key).exists():
            self.read(key)

    def keys(self) -> list[str]:
        """Return the cache key of every record, here or shared, sorted."""
        shared = set() if self._remote is None else self._remote.record_keys()
        return sorted(shared | self._kept_here())

    def read_all(self, *, strict: bool = False) -> dict[str, dict[str, Any]]:
        """Return every record by cache key, sorted, after fetching those of other machines.

        A damaged one is set aside, with a warning: what it was about is computed again when it is next asked for.

        Raises:
            DamagedArtifactError: instead, if that is asked for; always for one that is shared.
        """
        if self._remote is not None:
            for key, record in self._remote.records(without=self._kept_here()).items():
                self.keep(key, record)
        found = {}
        for key in sorted(self._kept_here()):
            try:
                found[key] = self.read(key)
            except DamagedArtifactError as error:
                if strict:
                    raise
                logging.getLogger("capo").warning("set aside: %s", error)
                set_aside(self._home, self.path(key), f"lineage-{key}")
        return found

    def _kept_here(self) -> set[str]:
        return {path.stem for path in self.path("").parent.glob("[!.]*.json")}
