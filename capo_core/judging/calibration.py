"""Whether judges agree with each other, and with a classifier that has learnt how the people write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from capo_core.agreement import agreement_table
from capo_core.judging.attribution import draw_attributed
from capo_core.judging.groups import HUMAN, HUMAN_OTHER, HUMAN_SHUFFLED, list_candidates
from capo_core.judging.judged_groups import CONDITIONS, JudgedGroup, read_groups
from capo_core.judging.questions import normalise_texts
from capo_core.seeding import derive_seed
from capo_core.stylometry.attribution import fit_attributor
from capo_core.text import identity_form
from schemas.config import TaskSpec
from schemas.frames import JUDGE_AGREEMENT, check_columns
from schemas.judge import JudgeConfig

STYLOMETRY = "stylometry"
"""The n-gram classifier's name among the judges."""

_METRICS = ("krippendorff_alpha_nominal", "cohen_kappa", "percent_agreement")

GroupKey = tuple[str, str, int, str, tuple[str, ...]]
"""Condition, method, seed, annotator and items."""


def attribute_groups(
    corpus: pl.DataFrame, generations: pl.DataFrame, task: TaskSpec, config: JudgeConfig
) -> dict[GroupKey, str]:
    """Return whom the stylometric classifier takes for the author of every group that judges attribute.

    The classifier (`capo_core.stylometry.attribution`: character n-grams, logistic regression) learns from training
    explanations alone, normalised as the judge's texts are. A group goes to argmax_a Σ_i log p(a | explanation i).

    Args:
        corpus: CORPUS.
        generations: GENERATIONS of held-out items.
        task: the task the annotators did.
        config: what judges were asked.

    Raises:
        CorpusError: see `draw_groups` and `fit_attributor`.
    """
    annotators = list_candidates(corpus)
    groups = draw_attributed(corpus, generations, config)
    training = corpus.filter(pl.col("split") == "train").sort("item_id", "annotator_id", "label", "explanation")
    written = [
        (text, who) for text, who in training.select("explanation", "annotator_id").iter_rows() if identity_form(text)
    ]
    named: dict[GroupKey, str] = {}
    for normalisation in config.normalisations:
        # White space as in the groups, or it would give away who is a person.
        texts = normalise_texts([identity_form(text) for text, _ in written], normalisation, task)
        attributor = fit_attributor(list(texts), [who for _, who in written])
        for group in groups:
            shown = list(normalise_texts(group.explanations, normalisation, task))
            total = attributor.log_probabilities(shown, annotators).sum(axis=0)
            key = (CONDITIONS[normalisation], group.method, group.seed, group.annotator_id, group.item_ids)
            named[key] = annotators[int(total.argmax())]
    return named


def measure_agreement(
    verdicts: pl.DataFrame,
    config: JudgeConfig,
    attributed: Mapping[GroupKey, str],
    *,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Return how far judges agree with each other and, in attribution, with the classifier: JUDGE_AGREEMENT.

    What is compared are verdicts on groups, all orders together; a tie or a group that is not measured is missing, and
    `n_groups` says how many are left. With two judges or more: Krippendorff's α and percent agreement over all of them,
    Cohen's κ and percent agreement of each pair; κ and percent agreement of each judge with the classifier.

    Args:
        verdicts: VERDICTS of one judge or several.
        config: what was asked.
        attributed: of `attribute_groups`; empty for none.
        n_bootstrap: resamples of groups.
        confidence: of the intervals.

    Returns:
        By protocol, condition and source (human without the shuffled floor, models; pairwise: human is the
        calibration, models are the pairs of methods).
    """
    groups = read_groups(verdicts)
    judges = sorted({group.judge for group in groups})
    parts = []
    for protocol in config.protocols:
        for condition in (CONDITIONS[normalisation] for normalisation in config.normalisations):
            for source in ("human", "models"):
                part = [
                    group
                    for group in groups
                    if (group.protocol, group.condition, _source(group)) == (protocol, condition, source)
                ]
                compared = [judges] if len(judges) > 1 else []
                if protocol == "attribution" and attributed:
                    compared += [[judge, STYLOMETRY] for judge in judges]
                labels = _label_groups(part, attributed)
                for names in compared:
                    seed = derive_seed(config.seed, "judge agreement", protocol, condition, source)
                    table = agreement_table(
                        _complete(labels, names), "nominal", n_bootstrap=n_bootstrap, confidence=confidence, seed=seed
                    )
                    parts.append(_rename(table, protocol, condition, source, names))
    found = pl.concat(parts) if parts else pl.DataFrame(schema=JUDGE_AGREEMENT)
    return check_columns(found, JUDGE_AGREEMENT, "judge agreement")


def _source(group: JudgedGroup) -> str | None:
    """Return whose text a group is: human, models, or None for the floor."""
    if group.method == HUMAN_SHUFFLED:
        return None
    is_human = group.method in (HUMAN, HUMAN_OTHER) and group.compared_with in (None, HUMAN_OTHER)
    return "human" if is_human else "models"


def _label_groups(groups: Sequence[JudgedGroup], attributed: Mapping[GroupKey, str]) -> pl.DataFrame:
    """Return the verdict of each judge, and the classifier's, on each group; columns item_id, annotator_id, label."""
    rows = {}
    for group in groups:
        key = (group.condition, group.method, group.seed, group.annotator_id, group.item_ids)
        name = repr((*key, group.compared_with))
        rows[name, group.judge] = group.verdict
        if group.protocol == "attribution" and key in attributed:
            rows[name, STYLOMETRY] = attributed[key]
    schema = {"item_id": pl.String, "annotator_id": pl.String, "label": pl.String}
    return pl.DataFrame([(*place, label) for place, label in sorted(rows.items())], schema=schema, orient="row")


def _complete(labels: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return the labels of `names` alone; one who labelled nothing stays in the table by a row without a label."""
    absent = [{"item_id": "", "annotator_id": name, "label": None} for name in names]
    return pl.concat([labels.filter(pl.col("annotator_id").is_in(names)), pl.DataFrame(absent, schema=labels.schema)])


def _rename(table: pl.DataFrame, protocol: str, condition: str, source: str, names: Sequence[str]) -> pl.DataFrame:
    """Return an AGREEMENT frame's coefficients as JUDGE_AGREEMENT; of two names, those of the pair alone."""
    kept = table.filter(pl.col("metric").is_in(_METRICS))
    if STYLOMETRY in names:
        kept = kept.filter(pl.col("annotator_a").is_not_null())
    return kept.select(
        pl.lit(protocol).alias("protocol"),
        pl.lit(condition).alias("condition"),
        pl.lit(source).alias("source"),
        "metric",
        pl.col("annotator_a").alias("judge_a"),
        pl.col("annotator_b").alias("judge_b"),
        "value",
        "ci_low",
        "ci_high",
        pl.col("n_items").alias("n_groups"),
        pl.col("n_annotations").alias("n_verdicts"),
    )
