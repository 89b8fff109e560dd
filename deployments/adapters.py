"""What the command line does to publish an adapter."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rich.console import Console

from capo_core.consent import find_objections, read_consent
from capo_core.errors import DamagedArtifactError, ReleaseError
from capo_core.generation.vllm.rules import examine_adapter
from capo_core.pseudonyms import name_pseudonyms
from capo_core.release.adapter import publish_recipe, write_adapter
from capo_core.release.adapter_card import ALL, AdapterFacts, render_adapter_card
from capo_core.release.base_model import name_base
from capo_core.release.card import CARD_FILE
from capo_core.release.folder import new_folder, require_new
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from schemas.registry import AnsweringRecipe
from schemas.release import ReleaseConfig, is_stated
from tasks.corpus_history import read_history
from tasks.registry import Version, fetch_version
from tasks.sources import release_secret
from tasks.storage.artifact_store import ArtifactStore


def export_adapter(
    version: Version, out: Path, config: ExperimentConfig | None, base_model: str | None, forced: str | None
) -> AdapterFacts:
    """Write a registered adapter as a folder that PEFT and vLLM load, with its card; return what is said of it.

    Args:
        version: which.
        out: a new folder.
        config: its section `release` goes into the card; None states nothing.
        base_model: a Hugging Face id for the base model, where the configured one means nothing to others.
        forced: why ids of annotators may be published as they stand in the data; None where none are.

    Raises:
        ReleaseError: if the folder is there, nobody else could find the base model, the configuration is of another
            corpus, ids would be published without a reason, or somebody whose words it learned from does not consent.
    """
    require_new(out)
    recipe = fetch_version(version)
    if config is not None and config.corpus.name != recipe.corpus:
        raise ReleaseError(f"{version.name} is of corpus {recipe.corpus}, the configuration of {config.corpus.name}")
    _require_publishable_ids(version.name, recipe, forced)
    require_consent_to_release(
        version.name, recipe, require_consent=config is not None and config.corpus.require_consent
    )
    base = name_base(recipe.model.id, recipe.fingerprint, base_model)
    pseudonyms = name_pseudonyms(recipe.annotators, recipe.corpus, release_secret())
    published = publish_recipe(recipe, base, pseudonyms)
    store = ArtifactStore()
    adapter_dir = store.path(recipe.adapter)
    facts = AdapterFacts(
        name=f"{recipe.corpus}.{published.target}",
        trained_card=(adapter_dir / CARD_FILE).read_text(encoding="utf-8"),
        recipe=published,
        person=ALL if recipe.tag is not None else recipe.target,
        base=base,
        serving=examine_adapter(adapter_dir),
        metrics=_read_if_there(store, recipe.evaluation),
        retention=_read_if_there(store, recipe.retention),
        release=config.release if config is not None else ReleaseConfig(),
        forced=forced,
    )
    with new_folder(out) as folder:
        write_adapter(adapter_dir, published, base, folder)
        (folder / CARD_FILE).write_text(render_adapter_card(facts, recipe.model.id), encoding="utf-8")
    return facts


def require_consent_to_release(name: str, recipe: AnsweringRecipe, *, require_consent: bool) -> None:
    """Raise ReleaseError if an adapter learned from the words of somebody who does not consent to a release.

    Whom CAPO prefers a person over is learned from too. What batches state since counts; no reason overrules it.
    """
    store = ArtifactStore()
    try:
        corpus = store.read_table(recipe.corpus_version)
    except DamagedArtifactError as error:
        raise ReleaseError(
            f"{name}: what its people consent to cannot be looked up, because its corpus is not on this machine "
            f"({error}); export it where it was trained, or share artifacts (CAPO_ARTIFACTS)"
        ) from error
    learned = set(recipe.annotators) if recipe.method == "sft" else set(corpus["annotator_id"])
    stated = [corpus.select("annotator_id", "metadata")]
    for taken in read_history(recipe.corpus).batches:
        stated.append(store.read_table(taken.batch).select("annotator_id", "metadata"))
    consent = read_consent(pl.concat(stated), sorted(learned))
    objections = find_objections(consent, "release", require_consent=require_consent)
    if objections:
        told = "; ".join(f"{who}: {why}" for who, why in objections.items())
        raise ReleaseError(
            f"{name}: it learned from the words of people who do not consent to a release ({told}). Train one without "
            "them, or ask them"
        )


def _require_publishable_ids(name: str, recipe: AnsweringRecipe, forced: str | None) -> None:
    """Raise ReleaseError if the adapter is asked by ids that stand in the data and no reason is given."""
    if forced is not None and not forced.strip():
        raise ReleaseError("--force needs a reason; it goes into the card")
    if recipe.tag is not None and forced is None:
        raise ReleaseError(
            f"{name}: one adapter for several people is asked by their ids as they stand in the data "
            f"({', '.join(recipe.annotators)}), and so they would be published. If they lead to nobody, export it with "
            "--force REASON, which goes into the card; else pseudonymise the data, train again, and export that"
        )


def _read_if_there(store: ArtifactStore, ref: ArtifactRef | None) -> pl.DataFrame | None:
    """Return an artifact's main table, None where this machine does not have it."""
    if ref is None:
        return None
    try:
        return store.read_table(ref)
    except DamagedArtifactError:
        return None


def print_adapter(console: Console, facts: AdapterFacts, out: Path) -> None:
    """Print where the adapter is, and what to know before it goes anywhere."""
    warnings = []
    if facts.serving.obstacles:
        warnings.append(f"vLLM does not load it, because {'; '.join(facts.serving.obstacles)}; PEFT does")
    if facts.base.note is not None:
        warnings.append(facts.base.note)
    if facts.metrics is None:
        warnings.append("the evaluation is not on this machine: the card has no figures")
    if not is_stated(facts.release.consent):
        warnings.append("consent is not stated, and the card says so: name the experiment's configuration as --config")
    for warning in warnings:
        console.print("[yellow]note[/yellow] ", end="")
        console.print(warning, markup=False, highlight=False)
    console.print(f"adapter {facts.name}: {out}", markup=False, highlight=False, soft_wrap=True)
