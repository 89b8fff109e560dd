"""The stability of style on named features, all tables together: tests, reliability and each annotator's profile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from capo_core.progress import Progress, silent
from capo_core.seeding import derive_seed
from capo_core.statistics.multiplicity import holm_adjust
from capo_core.stylometry.features import FEATURES, feature_matrix
from capo_core.stylometry.folding import read_explanations
from capo_core.stylometry.permutation import PermutationTests, compare_annotators
from capo_core.stylometry.reliability import mean_reliability, reliability_table
from capo_core.stylometry.style_profile import feature_differences, style_examples
from capo_core.stylometry.style_words import style_words
from capo_core.stylometry.variance import partition_variance
from schemas.config import StabilityConfig
from schemas.frames import FEATURE_TESTS, STYLE_FEATURES, check_columns


@dataclass(frozen=True)
class StyleTables:
    """Style on named features; the tables of artifact kind `style`.

    Attributes:
        features: FEATURE_TESTS, one row per feature in the order of `features.FEATURES`.
        reliability: RELIABILITY, two rows per annotator.
        annotators: STYLE_FEATURES, one row per annotator and feature.
        words: STYLE_WORDS.
        examples: STYLE_EXAMPLES.
    """

    features: pl.DataFrame
    reliability: pl.DataFrame
    annotators: pl.DataFrame
    words: pl.DataFrame
    examples: pl.DataFrame


def style_tables(corpus: pl.DataFrame, config: StabilityConfig, *, progress: Progress = silent) -> StyleTables:
    """Return the tests of style on named features and every annotator's style profile.

    Variance partition (`variance`), within-item permutation tests (`permutation`; Holm over features, and over
    annotators × features for the annotators' own), reliability (`reliability`), differences, words and examples
    (`style_profile`, `style_words`). Figures of features that never vary are null.

    Args:
        corpus: CORPUS; rows of other splits than train and validation, or without explanation, are not read.
        config: permutations, bootstrap resamples, folds, examples per annotator, seed.
        progress: told of each of the five tables.

    Raises:
        CorpusError: if there are fewer than two annotators, or fewer contexts than folds.
    """
    rows = read_explanations(corpus).rows
    features = feature_matrix(rows)
    owners, items, labels = (rows[name].to_numpy().astype(str) for name in ("annotator_id", "item_id", "label"))
    tests = compare_annotators(
        features, owners, items, labels, n_permutations=config.n_permutations, seed=_seed(config, "permutations")
    )
    tested = _test_table(features, owners, items, labels, tests)
    progress(1, 5)
    source_order = rows.select(pl.struct("source_file", "source_line").rank("dense")).to_series().to_numpy()
    reliability = reliability_table(features, owners, items, source_order, seed=_seed(config, "reliability"))
    progress(2, 5)
    differences = feature_differences(
        features, owners, items, n_bootstrap=config.n_bootstrap, seed=_seed(config, "resamples")
    )
    annotators = _annotator_table(differences, tests)
    progress(3, 5)
    words = style_words(rows, seed=_seed(config, "words"))
    progress(4, 5)
    examples = style_examples(
        rows, n_examples=config.n_examples, n_folds=config.n_folds, seed=_seed(config, "examples")
    )
    progress(5, 5)
    return StyleTables(tested, reliability, annotators, words, examples)


def _seed(config: StabilityConfig, purpose: str) -> int:
    return derive_seed(config.seed, "style", purpose)


def _test_table(
    features: np.ndarray, owners: np.ndarray, items: np.ndarray, labels: np.ndarray, tests: PermutationTests
) -> pl.DataFrame:
    """Return FEATURE_TESTS."""
    partition = partition_variance(features, owners, items, labels)
    table = pl.DataFrame(
        {
            "feature": [feature.name for feature in FEATURES],
            "unit": [feature.unit for feature in FEATURES],
            "definition": [feature.definition for feature in FEATURES],
            "variance_annotator": partition.annotator,
            "variance_item": partition.item,
            "variance_label": partition.label,
            "variance_residual": partition.residual,
            "partial_omega_squared": partition.partial_omega_squared,
            "p_value": tests.p_values,
            "p_holm": holm_adjust(tests.p_values),
            "reliability": mean_reliability(partition.f_ratio),
            "n_annotations": partition.n,
            "n_permutations": np.full(len(FEATURES), tests.n_permutations),
        },
        schema=FEATURE_TESTS,
    )
    return check_columns(table.with_columns(pl.col(pl.Float64).fill_nan(None)), FEATURE_TESTS, "feature tests")


def _annotator_table(differences: pl.DataFrame, tests: PermutationTests) -> pl.DataFrame:
    """Return STYLE_FEATURES; Holm's correction is over all annotators and features."""
    adjusted = pl.Series("p_holm", holm_adjust(tests.p_by_annotator).ravel()).fill_nan(None)
    names = [FEATURES[number].name for number in differences["feature"]]
    units = [FEATURES[number].unit for number in differences["feature"]]
    table = differences.with_columns(pl.Series("feature", names), pl.Series("unit", units), adjusted)
    return check_columns(table.select(list(STYLE_FEATURES)), STYLE_FEATURES, "style features")
