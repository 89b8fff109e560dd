"""Lineage records as they are kept: canonical JSON that carries its own digest, so that no changed byte is believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from capo_core.errors import DamagedArtifactError
from tasks.storage.manifests import canonical_json

_DIGEST = "sha256"
# A record of before records were sealed has these fields and no others; a damaged name of a field is no such record.
_UNSEALED = frozenset({"step", "version", "key", "config", "reads", "writes", "returns", "seconds"})


def seal_record(record: Mapping[str, JsonValue]) -> bytes:
    """Return a record as bytes that `open_record` can tell from changed ones."""
    return canonical_json({**record, _DIGEST: _digest(record)}).encode("utf-8")


def open_record(content: bytes, place: str) -> dict[str, Any]:
    """Return the record that was sealed.

    Args:
        content: as it was kept.
        place: where it was kept; errors name it.

    Raises:
        DamagedArtifactError: if a byte was changed.
    """
    try:
        record = json.loads(content)
        if record.keys() == _UNSEALED:
            return record
        if record.pop(_DIGEST) == _digest(record):
            return record
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise DamagedArtifactError(f"{place} is no whole lineage record; delete it, and it is computed again")


def _digest(record: Mapping[str, JsonValue]) -> str:
    return hashlib.sha256(canonical_json(record).encode("utf-8")).hexdigest()
