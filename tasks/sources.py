"""What lies outside the artifact store, found and fingerprinted when a run begins: raw files, models, secrets."""

from __future__ import annotations

import hashlib
import os
import secrets
from importlib.resources import files
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from capo_core.errors import InputFileError, ModelError
from schemas.artifacts import ModelRef, SourceFile
from tasks.storage.home import capo_home, data_dir, model_cache
from tasks.storage.manifests import hash_file

BUNDLED = "bundled:"


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
    return _read_or_make_secret("validation.key")


def release_secret() -> bytes:
    """Return the key from which the pseudonyms in exported data come; who has it can trace them back."""
    return _read_or_make_secret("release.key")


def _read_or_make_secret(name: str) -> bytes:
    """Return a key, made on first use and kept apart from all artifacts (mode 0600)."""
    path = capo_home() / "keys" / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return bytes.fromhex(path.read_text(encoding="ascii"))
    secret = secrets.token_bytes(32)
    with os.fdopen(descriptor, "w", encoding="ascii") as handle:
        handle.write(secret.hex())
    return secret


def secret_id(secret: bytes) -> str:
    """Return a name for a secret that does not give it away, for cache keys."""
    return hashlib.sha256(b"capo secret id:" + secret).hexdigest()[:16]
