"""Where capo keeps its things: one folder, `CAPO_HOME`, default `.capo` in the working directory.

Artifacts that several machines share are kept at a URL besides, `CAPO_ARTIFACTS`.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def capo_home() -> Path:
    """Return the absolute path of capo's folder; read from the environment at each call."""
    return Path(os.environ.get("CAPO_HOME", ".capo")).expanduser().resolve()


def artifacts_url() -> str | None:
    """Return the URL at which artifacts are shared (`s3://bucket/prefix`, `file:///folder`), None if they are not."""
    return os.environ.get("CAPO_ARTIFACTS") or None


def model_cache() -> Path:
    """Return the folder of converted models, shared by all projects of this user."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "capo" / "models"
    return Path(os.environ.get("CAPO_MODEL_CACHE", default)).expanduser().resolve()


def data_dir() -> Path:
    """Return the folder in which relative corpus paths are looked up."""
    return Path(os.environ.get("CAPO_DATA_DIR", ".")).expanduser().resolve()


def set_aside(home: Path, path: Path, name: str) -> None:
    """Move something that is not what it should be to `<home>/damaged`, under a name and a number of its own."""
    aside = home / "damaged" / f"{name}-{uuid.uuid4().hex[:8]}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    path.rename(aside)
