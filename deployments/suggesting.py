"""What `capo suggest` does: the models' doubts about items, ranked and written for annotation."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from capo_core.batches.suggestion import suggest_items
from capo_core.batches.suggestion_export import write_suggestions
from capo_core.corpora.identities import Naming
from capo_core.corpora.tabular import read_items
from capo_core.errors import CorpusError, InputFileError
from capo_core.generation.predicting import predict
from capo_core.models import load_encoder, resolve_model
from capo_core.text import text_id
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from schemas.frames import GENERATIONS
from tasks.registry import CHAMPION, fetch_version, list_versions
from tasks.sources import annotator_secret
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import model_cache


def suggest(
    config: ExperimentConfig, corpus: ArtifactRef, annotator: str, n: int, items: Path | None, folder: Path
) -> pl.DataFrame:
    """Write the items that would teach most about an annotator, and return them, columns `SUGGESTIONS`.

    Asked could be: the items of a table, or those training items of the corpus that the annotator left out; never one
    that the annotator has annotated. The champions of the corpus say what is in doubt; without any, novelty decides.

    Args:
        config: the experiment; its corpus and encoder.
        corpus: the corpus's newest version.
        annotator: whom, by the name in the corpus or the id in the raw files; may be new.
        n: how many at most.
        items: table of new items with item_id, text_a and text_b; None for those of the corpus.
        folder: must not exist, or be empty.

    Raises:
        CorpusError: if there is nothing to ask.
        InputFileError: if the table cannot be read or the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputFileError(f"{folder}: holds files already; name another folder with --out")
    annotations = ArtifactStore().read_table(corpus)
    annotator = _name_annotator(config, annotator, set(annotations["annotator_id"]))
    own = annotations.filter(annotator_id=annotator)
    pool = annotations.filter(split="train") if items is None else read_items(items)
    pool = pool.select("item_id", "text_a", "text_b").unique("item_id", maintain_order=True)
    ids = [text_id(*texts) for texts in pool.select("text_a", "text_b").iter_rows()]
    pool = pool.filter(~pl.Series(ids, dtype=pl.String).is_in(own["item_id"].unique().to_list()))
    if pool.is_empty():
        where = f"{items}" if items else f"the training items of {config.corpus.name}"
        raise CorpusError(f"{where}: {annotator} has annotated all of them; give new ones with --items")
    embedding = config.embedding
    encoder = load_encoder(resolve_model(embedding.id, embedding.revision, cache_dir=model_cache()))
    suggested = suggest_items(pool, annotator, _ask_champions(config.corpus.name, pool), own, encoder, n)
    write_suggestions(suggested, annotator, config.task, folder)
    return suggested


def _name_annotator(config: ExperimentConfig, said: str, known: set[str]) -> str:
    """Return what an annotator is called in a corpus; who is new gets the pseudonym that a batch would give."""
    if config.corpus.annotator_ids == "keep":
        return said
    return said if said in known else Naming(config.corpus.name, annotator_secret()).pseudonym(said)


def _ask_champions(corpus: str, pool: pl.DataFrame) -> pl.DataFrame:
    """Return what every champion of the corpus answers to the pool's items."""
    answers = [pl.DataFrame(schema=GENERATIONS)]
    for champion in (version for version in list_versions() if CHAMPION in version.aliases):
        if not champion.name.startswith(f"{corpus}."):
            continue
        recipe = fetch_version(champion)
        if recipe.corpus != corpus:  # a corpus's name may itself begin with another's and a dot
            continue
        base = resolve_model(recipe.model.id, recipe.model.revision, cache_dir=model_cache())
        short = recipe.model_copy(update={"generation": recipe.generation.model_copy(update={"max_new_tokens": 8})})
        answers.append(predict(pool, recipe.annotators, short, base, ArtifactStore().path(recipe.adapter)))
    return pl.concat(answers)
