"""Inboxes: folders into which later files of a corpus are dropped."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from capo_core.config_file import load_config
from capo_core.durable_files import write_file_atomically
from capo_core.errors import InputFileError
from schemas.config import ExperimentConfig
from tasks.storage.home import capo_home

EXPERIMENT_FILE = "experiment.yaml"
TAKEN, REFUSED = "taken", "refused"

_SETTLED_SECONDS = 3.0
"""A file is whole when its size and time have not changed for so long."""
_WAIT_SECONDS = 600.0
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")


def inbox_root() -> Path:
    """Return the folder of all inboxes."""
    return capo_home() / "inbox"


def is_batch(path: Path) -> bool:
    """Return whether a file of an inbox is one to take in: no hidden file, no part of a download, no experiment."""
    hidden = path.name.startswith((".", "~")) or path.suffix.lower() in _UNFINISHED
    return path.is_file() and not hidden and path.name != EXPERIMENT_FILE


@dataclass(frozen=True)
class Inbox:
    """The inbox of one corpus."""

    folder: Path

    def read_experiment(self) -> ExperimentConfig:
        """Return the experiment that the inbox's files belong to.

        Raises:
            ConfigError: if it cannot be read.
            InputFileError: if it is of another corpus than the folder's name says.
        """
        config = load_config(self.folder / EXPERIMENT_FILE)
        if config.corpus.name != self.folder.name:
            raise InputFileError(
                f"{self.folder / EXPERIMENT_FILE}: is of corpus {config.corpus.name}, in the inbox of "
                f"{self.folder.name}; make one inbox for each: capo inbox CONFIG"
            )
        return config

    def wait_for_files(self) -> list[Path]:
        """Return the files to take in, by name, once nobody is writing to them any more."""
        deadline = time.monotonic() + _WAIT_SECONDS
        seen: dict[Path, tuple[int, int]] = {}
        while True:
            found = {path: _fingerprint(path) for path in sorted(self.folder.iterdir()) if is_batch(path)}
            recent = time.time() - _SETTLED_SECONDS
            if all(seen.get(path) == mark or mark[1] / 1e9 < recent for path, mark in found.items()):
                return list(found)
            if time.monotonic() > deadline:
                return [path for path, mark in found.items() if seen.get(path) == mark]
            seen = found
            time.sleep(_SETTLED_SECONDS)

    def put_away(self, path: Path) -> Path:
        """Move a file that was taken in to `taken` and return where it is."""
        return _move(path, self.folder / TAKEN)

    def refuse(self, path: Path, reason: str) -> Path:
        """Move a file that could not be taken in to `refused`, the reason beside it, and return where it is."""
        moved = _move(path, self.folder / REFUSED)
        write_file_atomically(moved.with_name(f"{moved.name}.reason.txt"), f"{reason}\n".encode())
        return moved


def find_inboxes() -> list[Inbox]:
    """Return the inboxes that have an experiment, by corpus."""
    return [Inbox(path.parent) for path in sorted(inbox_root().glob(f"*/{EXPERIMENT_FILE}"))]


def make_inbox(config: ExperimentConfig) -> Inbox:
    """Return the inbox of an experiment's corpus, made if there is none; from now on its files belong to this one."""
    folder = inbox_root() / config.corpus.name
    for name in (TAKEN, REFUSED):
        (folder / name).mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    write_file_atomically(folder / EXPERIMENT_FILE, text.encode("utf-8"))
    return Inbox(folder)


def _fingerprint(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _move(path: Path, folder: Path) -> Path:
    """Move a file into a folder, under another name if one of its name is there, and return where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / path.name, 1
    while target.exists():
        number += 1
        target = folder / f"{path.stem}-{number}{path.suffix}"
    return path.rename(target)
