"""What lies outside the artifact store, found and fingerprinted when a run begins: raw files, models, secrets."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from capo_core.durable_files import create_file_atomically
from capo_core.errors import ConfigError, InputFileError, ModelError
from capo_core.hashing import hash_file
from schemas.artifacts import ModelRef, SourceFile
from tasks.storage.home import capo_home, data_dir, model_cache

BUNDLED = "bundled:"
_SECRET_BYTES = 32


def find_source(path: str) -> SourceFile:
    """Return the file a configured path names, with its content hash.

    Args:
        path: `bundled:example/nli.csv`, an absolute path, or one relative to CAPO_DATA_DIR.

    Raises:
        InputFileError: if it is not there or not a file; says where it was looked for.
    """
    if path.startswith(BUNDLED):
        found = Path(str(files("capo_core.corpora"))) / path.removeprefix(BUNDLED)
        advice = f"bundled corpora are {', '.join(_list_bundled())}"
    else:
        found = data_dir() / path
        advice = "set CAPO_DATA_DIR (or --data-dir) to the folder that holds it, or correct the path"
    if not found.is_file():
        raise InputFileError(f"{found}: no such file; {advice}")
    return SourceFile(path=str(found), name=found.name, sha256=hash_file(found))


def _list_bundled() -> list[str]:
    root = Path(str(files("capo_core.corpora")))
    return sorted(BUNDLED + str(path.relative_to(root)) for path in root.rglob("*.csv"))


@task(name="locate-model", task_run_name="locate-model {model_id}", cache_policy=NO_CACHE, persist_result=False)
def locate_model(model_id: str, revision: str | None) -> ModelRef:
    """Return where a model's files are, after fetching or converting them if need be."""
    from capo_core.models import resolve_model

    return resolve_model(model_id, revision, cache_dir=model_cache())


def find_model_here(model: ModelRef) -> ModelRef:
    """Return a model that another machine may have found, as it lies on this one.

    Raises:
        ModelError: if it is not to be had here, or has another content.
    """
    if Path(model.path).is_dir():
        return model
    from capo_core.models import resolve_model

    found = resolve_model(
        model.id, None if model.id.startswith(BUNDLED) else model.fingerprint, cache_dir=model_cache()
    )
    if found.fingerprint != model.fingerprint:
        raise ModelError(
            f"{model.id}: its fingerprint is {found.fingerprint} here and was {model.fingerprint} where the run began; "
            "install the same version on all machines"
        )
    return found


def validation_secret() -> bytes:
    """Return the key that signs validation sheets."""
    return _read_or_make_secret("validation")


def release_secret() -> bytes:
    """Return the key from which the pseudonyms in exported data come; who has it can trace them back."""
    return _read_or_make_secret("release")


def annotator_secret() -> bytes:
    """Return the key from which the pseudonyms of annotators come when files are read; who has it can trace them."""
    return _read_or_make_secret("annotators")


def _read_or_make_secret(name: str) -> bytes:
    """Return a key: of the environment (CAPO_<NAME>_KEY, hex) or the home, made there on first use.

    In the home it is kept apart from all artifacts (mode 0600). Machines that work on one corpus need the same keys.

    Raises:
        ConfigError: if what is there is no key.
    """
    variable, path = f"CAPO_{name.upper()}_KEY", capo_home() / "keys" / f"{name}.key"
    if variable in os.environ:
        return _parse_secret(os.environ[variable], variable)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        with suppress(FileExistsError):
            create_file_atomically(path, secrets.token_bytes(_SECRET_BYTES).hex().encode("ascii"), mode=0o600)
    return _parse_secret(path.read_text(encoding="ascii"), str(path))


def _parse_secret(text: str, place: str) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) < _SECRET_BYTES:
        raise ConfigError(f"{place}: is no key of {_SECRET_BYTES} bytes in hex digits; restore it from a backup")
    return secret


def secret_id(secret: bytes) -> str:
    """Return a name for a secret that does not give it away, for cache keys."""
    return hashlib.sha256(b"capo secret id:" + secret).hexdigest()[:16]
