"""What the command line does with registered models: list, promote, roll back, ask."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import polars as pl
from rich.console import Console
from rich.table import Table

from capo_core.corpora.tabular import read_items
from capo_core.errors import InputFileError, RegistryError
from capo_core.generation.predicting import predict
from capo_core.models import resolve_model
from capo_core.spreadsheet import neutralise_formulas
from schemas.section import Decision
from tasks.people import resolve_annotator
from tasks.registry import Version, fetch_version, find_version, list_versions, model_name
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import model_cache
from tasks.train import SHARED

ANSWER_COLUMNS = ("item_id", "annotator_id", "label", "explanation", "parse_status")


def print_versions(console: Console, name: str | None = None) -> None:
    """Print every version of a registered model, or of all, with its aliases and where it came from."""
    versions = list_versions(name)
    if name is not None and not versions:
        find_version(name)
    table = Table()
    for title in ("Model", "Version", "Aliases", "Method", "Seed", "Base model", "Adapter", "Decision"):
        table.add_column(title, no_wrap=title in ("Model", "Version", "Aliases"))
    for version in versions:
        tags = version.tags
        table.add_row(
            version.name, version.number, ", ".join(version.aliases), tags["capo.method"], tags["capo.seed"],
            tags["capo.base_model"], version.adapter.sha256[:12], describe_decision(version),
        )  # fmt: skip
    console.print(table)


def describe_decision(version: Version) -> str:
    """Return why a version was promoted, or what the gate refused it for; empty where nobody decided."""
    tags = version.tags
    refused = f"refused: {tags['capo.gate_reasons']}" if tags.get("capo.gate") == "refused" else ""
    return tags.get("capo.promoted_because", refused)


def find_answering(corpus: str, annotator: str | None, wanted: str) -> tuple[Version, list[str]]:
    """Return the version that answers for a person, of their own adapter or the shared one, and for whom it is asked.

    Args:
        corpus: its name.
        annotator: None: all that the shared adapter answers for.
        wanted: alias or number.

    Raises:
        RegistryError: if there is none.
    """
    names = {version.name for version in list_versions()}
    shared = model_name(corpus, SHARED)
    if annotator is not None:
        annotator = _resolve_person(corpus, annotator, names, wanted)
    own = None if annotator is None else model_name(corpus, annotator)
    if own in names:
        return find_version(own, wanted), [annotator or ""]
    if shared not in names:
        there = ", ".join(sorted(names)) or "none; capo run registers them"
        raise RegistryError(f"{own or shared}: no such registered model; there are {there}")
    version = find_version(shared, wanted)
    return version, [annotator] if annotator is not None else []


def _resolve_person(corpus: str, said: str, names: set[str], wanted: str) -> str:
    """Return the person whom somebody means, by the name in the registry or by the id that it was made from."""
    known = _read_targets(corpus, names)
    if said not in known and model_name(corpus, SHARED) in names:
        known |= set(fetch_version(find_version(model_name(corpus, SHARED), wanted)).annotators)
    return resolve_annotator(corpus, said, known)


def resolve_name(said: str) -> str:
    """Return the registered model that `<corpus>.<annotator>` means; the id may be that of the raw files."""
    names = {version.name for version in list_versions()}
    for corpus in sorted({name.rpartition(".")[0] for name in names}):
        if said not in names and said.startswith(f"{corpus}."):
            raw = unquote(said.removeprefix(f"{corpus}."))
            found = model_name(corpus, resolve_annotator(corpus, raw, _read_targets(corpus, names)))
            if found in names:
                return found
    return said


def _read_targets(corpus: str, names: set[str]) -> set[str]:
    """Return whose registered models there are of a corpus."""
    return {unquote(name.removeprefix(f"{corpus}.")) for name in names if name.startswith(f"{corpus}.")}


def answer(version: Version, annotators: Sequence[str], items: pl.DataFrame, decision: Decision) -> pl.DataFrame:
    """Return a version's answers to items, columns `ANSWER_COLUMNS`.

    Args:
        version: which adapter.
        annotators: in whose places; none: of all that it answers for.
        items: columns item_id, text_a, text_b.
        decision: how labels are decided.
    """
    recipe = fetch_version(version)
    base = resolve_model(recipe.model.id, recipe.model.revision, cache_dir=model_cache())
    folder = ArtifactStore().path(recipe.adapter)
    frame = predict(items, annotators or recipe.annotators, recipe, base, folder, decision=decision)
    return frame.select(ANSWER_COLUMNS)


def read_asked(table: Path | None, text_a: str | None, text_b: str | None) -> pl.DataFrame:
    """Return the items asked about: those of a table, or the one given.

    Raises:
        InputFileError: unless exactly one of the two ways is used.
    """
    if (table is None) == (text_a is None and text_b is None):
        raise InputFileError("give either a table of items or --text-a and --text-b")
    if table is not None:
        return read_items(table)
    if text_a is None or text_b is None:
        raise InputFileError("--text-a and --text-b belong together")
    return pl.DataFrame({"item_id": ["1"], "text_a": [text_a], "text_b": [text_b]})


def write_answers(answers: pl.DataFrame, version: Version, path: Path) -> None:
    """Write answers with the version they are of to a CSV, JSON Lines or Parquet file.

    In CSV a cell that a spreadsheet would take for a formula gets an apostrophe in front.

    Raises:
        InputFileError: if the suffix is another.
    """
    about = {"model": version.name, "version": version.number, "answered_at": datetime.now().astimezone().isoformat()}
    answers = answers.with_columns(**{name: pl.lit(value) for name, value in about.items()})
    match path.suffix.lower():
        case ".csv":
            neutralise_formulas(answers).write_csv(path)
        case ".jsonl":
            answers.write_ndjson(path)
        case ".parquet":
            answers.write_parquet(path)
        case other:
            raise InputFileError(f"{path}: suffix {other!r} is none of .csv, .jsonl, .parquet")
