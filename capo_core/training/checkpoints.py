"""Checkpoints that know whose they are and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from capo_core.hashing import hash_file

_SEAL = "capo_seal.json"
_LOGGER = logging.getLogger(__name__)


def run_identity(**parts: Any) -> str:
    """Return a digest of everything that decides a training run: a checkpoint of another run must not be continued."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def checkpoint_steps(n_checkpoints: int, n_steps: int, steps_per_epoch: int) -> set[int]:
    """Return the steps after which checkpoints are written: evenly spaced, never at the end of an epoch.

    There the Trainer saves before it evaluates, and a run resumed from such a checkpoint would lack the figures.
    """
    spaced = (round(n_steps * (i + 1) / (n_checkpoints + 1)) for i in range(n_checkpoints))
    inside = (step - 1 if step % steps_per_epoch == 0 else step for step in spaced)
    return {step for step in inside if step > 0 and step % steps_per_epoch != 0}


class SealCheckpoints(TrainerCallback):
    """Has checkpoints written at given steps, and seals each: the run's identity and the digest of every file.

    The seal is written last and atomically, so that a checkpoint without one was not finished.
    """

    def __init__(self, identity: str, steps: set[int]) -> None:
        self._identity = identity
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint at this run's own steps, and at no other (the Trainer would add the last)."""
        control.should_save = state.global_step in self._steps

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seal the checkpoint just written."""
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        seal = {"identity": self._identity, "files": _digests(folder)}
        temporary = folder / f".{_SEAL}"
        with temporary.open("w", encoding="utf-8") as handle:
            json.dump(seal, handle)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(folder / _SEAL)


def newest_intact_checkpoint(checkpoint_dir: Path, identity: str) -> Path | None:
    """Return the checkpoint of this run with the most steps whose every file is as it was written, or None.

    Those that are damaged, unfinished or of another run are passed over, with a warning.

    Args:
        checkpoint_dir: folder with `checkpoint-<step>` folders; need not exist.
        identity: what `run_identity` says of this run.
    """
    found = sorted(
        (path for path in checkpoint_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if checkpoint_step(path) is not None),
        key=lambda path: checkpoint_step(path) or 0,
        reverse=True,
    )
    for folder in found:
        fault = _fault(folder, identity)
        if fault is None:
            return folder
        _LOGGER.warning("%s is passed over: %s", folder, fault)
    return None


def checkpoint_step(folder: Path) -> int | None:
    """Return the number of steps a checkpoint folder is named after."""
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdecimal() and folder.is_dir() else None


def _fault(folder: Path, identity: str) -> str | None:
    try:
        seal = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        if seal["identity"] != identity:
            return "it belongs to a run with other data, settings or library versions"
        changed = sorted(name for name, digest in _digests(folder).items() if seal["files"].get(name) != digest)
        missing = sorted(name for name in seal["files"] if not (folder / name).is_file())
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its seal cannot be read ({type(error).__name__})"
    if changed or missing:
        return f"{', '.join(changed + missing)} changed since it was written"
    return None


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _SEAL not in path.name)
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in files}
