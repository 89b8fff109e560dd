"""Which steps an MLflow server knows all about, asked as anybody would ask it."""

from __future__ import annotations

import httpx


def keys_with_metrics(url: str, auth: tuple[str, str] | None = None) -> set[str]:
    """Return the cache keys of the steps of which there is a finished run with what it cost and what it wrote."""
    search = f"{url}/api/2.0/mlflow"
    found = httpx.post(f"{search}/experiments/search", json={"max_results": 1000}, auth=auth, timeout=60).json()
    asked = {"experiment_ids": [one["experiment_id"] for one in found["experiments"]], "max_results": 5000}
    keys = set()
    for run in httpx.post(f"{search}/runs/search", json=asked, auth=auth, timeout=60).json()["runs"]:
        tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
        metrics = {metric["key"] for metric in run["data"].get("metrics", [])}
        is_named = any(name.startswith("capo.writes.") for name in tags)
        if run["info"]["status"] == "FINISHED" and "seconds" in metrics and is_named:
            keys.add(tags.get("capo.cache_key", ""))
    return keys
