"""Have files taken in as soon as they are dropped: run the deployment of `collect` whenever an inbox changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from prefect.deployments import run_deployment
from watchfiles import Change, watch

from tasks.inbox import inbox_root, is_batch

DEPLOYMENT = "collect/collect"

_QUIET_MILLISECONDS = 3000
_LOGGER = logging.getLogger("capo.inbox")


def is_drop(change: Change, path: str) -> bool:
    """Return whether a change is a file to take in: in an inbox itself, not in its folders, and not taken away."""
    found = Path(path)
    return change != Change.deleted and found.parent.parent == inbox_root() and is_batch(found)


def order_collection(changes: Iterable[tuple[Change, str]]) -> None:
    """Order a run of the deployment; what lies there by the time it runs is taken in."""
    _LOGGER.info("dropped: %s", ", ".join(sorted(path for _, path in changes)))
    run = run_deployment(DEPLOYMENT, timeout=0, as_subflow=False)
    _LOGGER.info("ordered: %s", run.name)


def main() -> None:
    """Watch until told to stop. A server that does not answer does not end it: the nightly run takes the file in."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    inbox_root().mkdir(parents=True, exist_ok=True)
    for changes in watch(inbox_root(), watch_filter=is_drop, step=_QUIET_MILLISECONDS, rust_timeout=5000):
        try:
            order_collection(changes)
        except Exception:
            _LOGGER.exception("the run could not be ordered; what was dropped is taken in by the next one")


if __name__ == "__main__":
    main()
