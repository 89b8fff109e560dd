"""Columns of every table capo stores: the contract between stages.

One row of `ANNOTATIONS` is one annotation: (item, annotator, label, explanation). An annotator who gave an
item two labels has two rows. Column order is part of the contract.
"""

from __future__ import annotations

import polars as pl

from schemas.frames.analysis import (
    AGREEMENT,
    CONVERGENCE,
    CONVERGENCE_FITS,
    DRIFT,
    FEATURE_TESTS,
    ITEM_LABELS,
    RELIABILITY,
    STABILITY,
    STABILITY_BY_ANNOTATOR,
    STYLE_EXAMPLES,
    STYLE_FEATURES,
    STYLE_WORDS,
    SUBJECTIVITY,
)
from schemas.frames.corpus import ANNOTATIONS, CORPUS, QUARANTINE, WITHDRAWALS
from schemas.frames.evaluation import (
    COMPARISONS,
    CROSS_ATTRIBUTION,
    EXCLUSIONS,
    GENERATIONS,
    METRICS,
    PROMOTION,
    RESULTS,
    RETENTION,
    STYLE_DISTANCES,
    VALUE_PROFILES,
)
from schemas.frames.judgements import (
    JUDGE_AGREEMENT,
    JUDGE_PAIRS,
    RATERS,
    RATINGS,
    VALIDATION_KEY,
    VALIDATION_TASKS,
    VERDICTS,
)
from schemas.frames.training import DEMONSTRATIONS, PAIR_DROPS, PREFERENCES, REFERENCE, TRAINING_LOG

SCHEMA_VERSIONS = {
    "annotations": 1,
    "batch": 1,
    "corpus": 1,
    "agreement": 2,
    "convergence": 1,
    "drift": 1,
    "stability": 3,
    "style": 1,
    "demonstrations": 1,
    "preferences": 3,
    "reference": 1,
    "adapter": 1,
    "value_profile": 1,
    "generations": 1,
    "evaluation": 2,
    "retention": 1,
    "experiment": 1,
    "verdicts": 3,
    "validation_tasks": 2,
    "validation_key": 2,
    "ratings": 3,
    "report": 1,
    "promotion": 1,
}
"""Version of each artifact kind's layout; raise it when columns or meaning change."""

TABLES: dict[str, dict[str, dict]] = {
    "annotations": {"data.parquet": ANNOTATIONS, "quarantine.parquet": QUARANTINE},
    "batch": {"data.parquet": ANNOTATIONS, "withdrawals.parquet": WITHDRAWALS, "quarantine.parquet": QUARANTINE},
    "corpus": {"data.parquet": CORPUS},
    "agreement": {"data.parquet": AGREEMENT, "items.parquet": ITEM_LABELS, "subjectivity.parquet": SUBJECTIVITY},
    "convergence": {"data.parquet": CONVERGENCE, "fits.parquet": CONVERGENCE_FITS},
    "drift": {"data.parquet": DRIFT},
    "stability": {"data.parquet": STABILITY, "annotators.parquet": STABILITY_BY_ANNOTATOR},
    "style": {
        "data.parquet": FEATURE_TESTS,
        "reliability.parquet": RELIABILITY,
        "annotators.parquet": STYLE_FEATURES,
        "words.parquet": STYLE_WORDS,
        "examples.parquet": STYLE_EXAMPLES,
    },
    "demonstrations": {"data.parquet": DEMONSTRATIONS},
    "preferences": {"data.parquet": PREFERENCES, "drops.parquet": PAIR_DROPS},
    "reference": {"data.parquet": REFERENCE},
    "adapter": {"training_log.parquet": TRAINING_LOG},
    "value_profile": {"data.parquet": VALUE_PROFILES},
    "generations": {"data.parquet": GENERATIONS},
    "evaluation": {
        "data.parquet": METRICS,
        "comparisons.parquet": COMPARISONS,
        "style_distances.parquet": STYLE_DISTANCES,
        "cross_attribution.parquet": CROSS_ATTRIBUTION,
        "exclusions.parquet": EXCLUSIONS,
    },
    "retention": {"data.parquet": RETENTION},
    "experiment": {"data.parquet": RESULTS},
    "verdicts": {
        "data.parquet": VERDICTS,
        "metrics.parquet": METRICS,
        "comparisons.parquet": COMPARISONS,
        "pairs.parquet": JUDGE_PAIRS,
        "agreement.parquet": JUDGE_AGREEMENT,
    },
    "validation_tasks": {"data.parquet": VALIDATION_TASKS},
    "validation_key": {"data.parquet": VALIDATION_KEY},
    "ratings": {
        "data.parquet": RATINGS,
        "metrics.parquet": METRICS,
        "comparisons.parquet": COMPARISONS,
        "raters.parquet": RATERS,
        "judges.parquet": METRICS,
    },
    "report": {},
    "promotion": {"data.parquet": PROMOTION},
}
"""Parquet files of each artifact kind and their columns; the first file is the main table."""


def check_columns(frame: pl.DataFrame, columns: dict, name: str) -> pl.DataFrame:
    """Return `frame` with exactly `columns`, in their order.

    Raises:
        ValueError: if a column is missing, superfluous or of another type; names the table and each column.
    """
    problems = [f"missing column {c!r}" for c in columns if c not in frame.columns]
    problems += [f"unexpected column {c!r}" for c in frame.columns if c not in columns]
    problems += [
        f"column {c!r} is {frame.schema[c]}, expected {t}"
        for c, t in columns.items()
        if c in frame.columns and frame.schema[c] != t
    ]
    if problems:
        raise ValueError(f"table {name}: " + "; ".join(problems))
    return frame.select(list(columns))


def empty(columns: dict) -> pl.DataFrame:
    """Return a frame with `columns` and no rows."""
    return pl.DataFrame(schema=columns)
