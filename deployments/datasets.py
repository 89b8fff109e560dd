"""What the command line does to publish a data set."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rich.console import Console

from capo_core.errors import ReleaseError
from capo_core.release.card import CARD_FILE, licence_fields
from capo_core.release.dataset import build_tables, list_files, write_tables
from capo_core.release.dataset_card import DatasetFacts, render_dataset_card
from capo_core.release.folder import new_folder, require_new
from capo_core.release.risk import describe_risk
from capo_core.release.traces import count_traces
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from schemas.release import is_stated
from tasks.storage.artifact_store import ArtifactStore


def require_releasable(config: ExperimentConfig, out: Path, forced: str | None) -> None:
    """Return nothing if the data set may be written to a folder; asked before anything is computed.

    Raises:
        ReleaseError: if no consent is stated and no reason given to go on without, the reason is empty, the licence is
            no SPDX expression, or the folder is there already.
    """
    require_new(out)
    licence_fields(config.release)
    if forced is not None and not forced.strip():
        raise ReleaseError("--force needs a reason; it goes into the card")
    if forced is None and not is_stated(config.release.consent):
        raise ReleaseError(
            "release.consent is not stated: say in the configuration what the annotators agreed to, or export all the "
            "same with --force REASON, which goes into the card"
        )


def write_dataset(config: ExperimentConfig, references: dict[str, str], out: Path, forced: str | None) -> DatasetFacts:
    """Write what the flow `release-dataset` made as a folder that `datasets` loads, and return what its card says.

    Args:
        config: of the experiment.
        references: what the flow returned.
        out: a new folder.
        forced: why it is exported although no consent is stated; None where one is.
    """
    store, kept = ArtifactStore(), {name: ArtifactRef.parse(text) for name, text in references.items()}
    pairs = [ref for name, ref in kept.items() if name.startswith("preferences/")]
    own = [ref for name, ref in kept.items() if name.startswith("demonstrations/")]
    corpus = store.read_table(kept["corpus"])
    tables = build_tables(corpus, [store.read_table(ref) for ref in own], [store.read_table(ref) for ref in pairs])
    known_by = store.metadata(kept["source_corpus"])["annotators"]
    facts = DatasetFacts(
        config=config,
        corpus=corpus,
        tables=tables,
        counts=store.metadata(kept["annotations"])["counts"],
        drops=pl.concat(store.read_table(ref, "drops.parquet") for ref in pairs),
        stability=store.read_table(kept["stability"]),
        stability_by_annotator=store.read_table(kept["stability"], "annotators.parquet"),
        traces=count_traces(corpus["explanation"], known_by),
        forced=forced,
    )
    with new_folder(out) as folder:
        write_tables(tables, folder)
        (folder / CARD_FILE).write_text(render_dataset_card(facts), encoding="utf-8")
    return facts


def print_dataset(console: Console, facts: DatasetFacts, out: Path) -> None:
    """Print what was written, the risk that was measured, and what to look at before it goes anywhere."""
    for name, table in facts.tables.items():
        parts = ", ".join(f"{split} {table.filter(split=split).height:,}" for split in list_files(facts.tables)[name])
        console.print(f"{name}: {parts}", markup=False, highlight=False)
    risk = describe_risk(facts.stability, facts.stability_by_annotator, facts.corpus["annotator_id"].n_unique())
    console.print("\n" + "\n".join(paragraph.replace("**", "") for paragraph in risk) + "\n", markup=False)
    found = {what: n for what, n in facts.traces.items() if n}
    if found:
        console.print("[yellow]look at the texts before they go anywhere[/yellow]: ", end="")
        console.print(", ".join(f"{n} {what}" for what, n in found.items()), markup=False, highlight=False)
    console.print(f"data set: {out}", markup=False, highlight=False, soft_wrap=True)
