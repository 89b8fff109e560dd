"""What the command line does to publish a data set."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from capo_core.corpora.identities import NAMING_EXPLANATIONS
from capo_core.errors import ReleaseError
from capo_core.pseudonyms import name_pseudonyms
from capo_core.release.card import CARD_FILE, licence_fields
from capo_core.release.dataset import build_tables, list_files, write_tables
from capo_core.release.dataset_card import DatasetFacts, render_dataset_card
from capo_core.release.folder import new_folder, require_new
from capo_core.release.k_anonymity import PrivacyCheck, check_privacy, describe_k_anonymity, tabulate_annotators
from capo_core.release.risk import GROUP_SIZES, describe_risk, tabulate_risk
from capo_core.release.traces import NAMINGS, count_traces
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from schemas.release import is_stated
from tasks.sources import release_secret
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
        forced: why it is exported although something stands against it; None where nothing does.

    Raises:
        ReleaseError: as `require_privacy`.
    """
    store, kept = ArtifactStore(), {name: ArtifactRef.parse(text) for name, text in references.items()}
    pairs = [ref for name, ref in kept.items() if name.startswith("preferences/")]
    own = [ref for name, ref in kept.items() if name.startswith("demonstrations/")]
    privacy = require_privacy(config, references, forced)
    corpus = store.read_table(kept["corpus"])
    tables = build_tables(
        corpus, [store.read_table(ref) for ref in own], [store.read_table(ref) for ref in pairs],
        _tabulate_published(config, store.read_table(kept["source_corpus"])),
    )  # fmt: skip
    counts = store.metadata(kept["annotations"])["counts"]
    known_by = store.metadata(kept["source_corpus"])["annotators"]
    traces = count_traces(corpus["explanation"], known_by)
    # Where ids became pseudonyms on being read, only then could they be looked for.
    traces[NAMINGS] += counts.get(NAMING_EXPLANATIONS, 0) if NAMINGS in traces else 0
    facts = DatasetFacts(
        config=config,
        corpus=corpus,
        tables=tables,
        counts=counts,
        drops=pl.concat(store.read_table(ref, "drops.parquet") for ref in pairs),
        stability=store.read_table(kept["stability"]),
        stability_by_annotator=store.read_table(kept["stability"], "annotators.parquet"),
        traces=traces,
        privacy=privacy,
        forced=forced,
    )
    with new_folder(out) as folder:
        write_tables(tables, folder)
        (folder / CARD_FILE).write_text(render_dataset_card(facts), encoding="utf-8")
    return facts


def require_privacy(config: ExperimentConfig, references: dict[str, str], forced: str | None) -> PrivacyCheck:
    """Return what published metadata do to the annotators of the data set that the flow `release-dataset` made.

    Raises:
        ReleaseError: if they narrow somebody down too far.
    """
    source = ArtifactStore().read_table(ArtifactRef.parse(references["source_corpus"]))
    check = check_privacy(source, config.release.annotator_columns)
    obstacle = check.find_obstacle(config.release, forced)
    if obstacle is not None:
        raise ReleaseError(obstacle)
    return check


def _tabulate_published(config: ExperimentConfig, source: pl.DataFrame) -> pl.DataFrame | None:
    """Return what is published of each annotator, under the names of the release; None where nothing is."""
    columns = config.release.annotator_columns
    if not columns:
        return None
    pseudonyms = name_pseudonyms(source["annotator_id"].unique(), config.corpus.name, release_secret())
    known = tabulate_annotators(source, columns)
    return known.with_columns(pl.col("annotator_id").replace_strict(pseudonyms)).sort("annotator_id")


def print_privacy(console: Console, config: ExperimentConfig, references: dict[str, str]) -> None:
    """Print what a release would tell of its annotators: k of every combination of metadata, and what style tells."""
    store, kept = ArtifactStore(), {name: ArtifactRef.parse(text) for name, text in references.items()}
    source = store.read_table(kept["source_corpus"])
    check = check_privacy(source, config.release.annotator_columns)
    for title, figures in (("Published", check.released), ("Known of annotators and withheld", check.withheld)):
        if figures.is_empty():
            continue
        table = Table(title=title)
        for name in ("Columns", "Combinations", "k", "Annotators below 5"):
            table.add_column(name, justify="left" if name == "Columns" else "right")
        for row in figures.select("columns", "n_combinations", "k", "n_below").iter_rows():
            table.add_row(*map(str, row))
        console.print(table)
    console.print(describe_k_anonymity(check), markup=False)
    stability = store.read_table(kept["stability"])
    risk = Table(title="Told by how they explain, share of k explanations attributed rightly")
    for name in ("Text", *(f"k = {size}" for size in GROUP_SIZES)):
        risk.add_column(name)
    for row in tabulate_risk(stability):
        risk.add_row(*row)
    console.print(risk)
    by_annotator = store.read_table(kept["stability"], "annotators.parquet")
    for paragraph in describe_risk(stability, by_annotator, check.n_annotators):
        console.print(paragraph.replace("**", ""), markup=False)


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
