"""Where capo keeps its things on this machine: one folder, `CAPO_HOME`, default `.capo` in the working directory."""

from __future__ import annotations

import os
from pathlib import Path


def capo_home() -> Path:
    """Return the absolute path of capo's folder; read from the environment at each call."""
    return Path(os.environ.get("CAPO_HOME", ".capo")).expanduser().resolve()


def model_cache() -> Path:
    """Return the folder of converted models, shared by all projects of this user."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "capo" / "models"
    return Path(os.environ.get("CAPO_MODEL_CACHE", default)).expanduser().resolve()


def data_dir() -> Path:
    """Return the folder in which relative corpus paths are looked up."""
    return Path(os.environ.get("CAPO_DATA_DIR", ".")).expanduser().resolve()
