"""A small data set as it is published, made without a flow."""

from __future__ import annotations

from typing import Any

import polars as pl
from evaluation_material import NLI, persona_corpus

from capo_core.preference_pairs import build_demonstrations, build_preferences
from capo_core.pseudonyms import name_pseudonyms
from capo_core.release.dataset import build_tables
from capo_core.release.dataset_card import DatasetFacts
from capo_core.release.k_anonymity import check_privacy
from capo_core.release.renaming import rename_annotators
from schemas.config import CorpusConfig, ExperimentConfig
from schemas.frames import STABILITY, STABILITY_BY_ANNOTATOR, empty
from schemas.release import ReleaseConfig
from schemas.training import ModelConfig, PairConfig

KEY = b"a key of the tests"
STATED = ReleaseConfig(
    collection="Four personas wrote it in a minute.",
    consent="All agreed to publication under a pseudonym.",
    licence="cc-by-4.0",
    contact="team@example.org",
    citation="@misc{personas}",
)


def release_config(release: ReleaseConfig = STATED) -> ExperimentConfig:
    """Return the configuration of the personas' corpus."""
    corpus = CorpusConfig(name="personas", format="table", paths=("personas.csv",))
    return ExperimentConfig(name="personas", task=NLI, corpus=corpus, model=ModelConfig(id="tiny"), release=release)


def named_corpus(**splits: int) -> pl.DataFrame:
    """Return the personas' corpus under pseudonyms."""
    corpus = persona_corpus(**({"n_train": 6, "n_validation": 2, "n_test": 2} | splits))
    return rename_annotators(corpus, name_pseudonyms(corpus["annotator_id"].unique(), "personas", KEY))


def dataset_facts(corpus: pl.DataFrame | None = None, **changes: Any) -> DatasetFacts:
    """Return what a card of the personas' corpus says, nothing measured and nothing forced."""
    corpus = named_corpus() if corpus is None else corpus
    people = sorted(corpus["annotator_id"].unique())
    built = [build_preferences(corpus, who, NLI, PairConfig(), tag=None) for who in people]
    demonstrations = [build_demonstrations(corpus, who, NLI, tag=None) for who in people]
    facts: dict[str, Any] = {
        "config": release_config(),
        "corpus": corpus,
        "tables": build_tables(corpus, demonstrations, [preferences for preferences, _ in built]),
        "counts": {
            "rows_in": 45, "rows_accepted": 40, "rows_quarantined": 5, "quarantined_empty_explanation": 3,
            "quarantined_unknown_label": 2, "idk_marks": 7, "explanations_ending_with_full_stop.ana": 9, "items": 10,
        },
        "drops": pl.concat(drops for _, drops in built),
        "stability": empty(STABILITY),
        "stability_by_annotator": empty(STABILITY_BY_ANNOTATOR),
        "privacy": check_privacy(corpus, ()),
        "traces": {"explanations with an e-mail address": 0},
        "forced": None,
    }  # fmt: skip
    return DatasetFacts(**(facts | changes))
