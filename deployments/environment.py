"""Settings of this process that Prefect, MLflow and transformers read when they are imported; set before they are.

Nothing that the user has set is changed.
"""

from __future__ import annotations

import os
from pathlib import Path

from deployments.local_stack.stack import find_endpoints
from tasks.storage.home import capo_home

LEASES_IN_FILES = "prefect.server.concurrency.lease_storage.filesystem"
"""The module in which Prefect's server keeps who holds a slot of a limit, restarts outlasting."""

_DEFAULTS = {
    # No library reports to anybody on its own.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The temporary server takes longer than Prefect's 20 seconds on a busy laptop.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Who holds a slot of a limit, kept in files: a server that was restarted would have forgotten it, and whoever waits
    # for the slot would wait forever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES_IN_FILES,
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait for one another soon sleep instead of spinning: beside one other busy process on two cores,
    # spinning without end made training four times slower than sleeping at once; this stands between the two.
    "GOMP_SPINCOUNT": "20000",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def prepare_environment(home: Path | None = None, data_dir: Path | None = None) -> None:
    """Point capo, Prefect and MLflow to their folders.

    The servers that `capo up` started for capo's folder are used where the user has named none. Without a Prefect
    server of the user's own (PREFECT_API_URL, PREFECT_HOME or a profile in ~/.prefect), Prefect's database and results
    live in capo's home too.

    Args:
        home: capo's folder, overriding CAPO_HOME.
        data_dir: where relative corpus paths are looked up, overriding CAPO_DATA_DIR.
    """
    if home is not None:
        os.environ["CAPO_HOME"] = str(home.expanduser().resolve())
    if data_dir is not None:
        os.environ["CAPO_DATA_DIR"] = str(data_dir.expanduser().resolve())
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    endpoints = find_endpoints(capo_home())
    has_profile = (Path.home() / ".prefect" / "profiles.toml").exists()
    is_own = not has_profile and "PREFECT_API_URL" not in os.environ
    if (is_own or endpoints is not None) and "PREFECT_HOME" not in os.environ:
        prefect_home = capo_home() / "prefect"
        prefect_home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(prefect_home)
    if endpoints is not None:
        for name, value in endpoints.environment.items():
            os.environ.setdefault(name, value)
