"""Tables that a run shows in the Prefect UI: who drifted, and what the promotion gate decided."""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl
from prefect.artifacts import create_table_artifact

from capo_core.batches.drift import ANY_FEATURE, LABELS
from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore

_NOT_IN_KEYS = re.compile(r"[^a-z0-9]+")
_DECIDED = "promotion/"


def show_tables(corpus: str, artifacts: Mapping[str, ArtifactRef]) -> None:
    """Put a run's drift and its promotion decisions, as far as it has any, on the run's page.

    Args:
        corpus: name of the corpus, part of the tables' keys: each key keeps its history.
        artifacts: what the run produced, by name.
    """
    if "drift" in artifacts:
        table = ArtifactStore().read_table(artifacts["drift"])
        shown = table.filter(
            pl.col("feature").is_in([ANY_FEATURE, LABELS])
            | (pl.col("p_holm").is_not_null() & (pl.col("p_holm") <= 0.05))
        )
        _show(f"drift {corpus}", shown, f"The newest batch of {corpus} against what its annotators said before.")
    for name, ref in artifacts.items():
        if name.startswith(_DECIDED):
            target = name.removeprefix(_DECIDED)
            about = "is champion now" if ArtifactStore().metadata(ref)["is_promoted"] else "stays challenger"
            _show(f"promotion {corpus} {target}", ArtifactStore().read_table(ref), f"{corpus}.{target}: {about}.")


def _show(title: str, table: pl.DataFrame, description: str) -> None:
    rounded = table.with_columns(pl.col(pl.Float64).round(4))
    key = _NOT_IN_KEYS.sub("-", title.casefold()).strip("-")
    create_table_artifact(table=rounded.to_dicts(), key=key, description=description)
