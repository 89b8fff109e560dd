"""The promotion gate over registered versions: a decision as an artifact, and the alias that follows from it."""

from __future__ import annotations

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from capo_core.consent import read_consent
from capo_core.evaluation.run_comparison import RunComparison
from capo_core.promotion import compare_with_champion, decide_promotion, refuse_incomparable
from schemas.artifacts import ArtifactRef
from schemas.config import EvaluationConfig, TaskSpec
from schemas.promotion import PromotionConfig
from tasks.registry import Version, keep_decision, promote
from tasks.step import Step, step
from tasks.storage.artifact_store import ArtifactStore
from tasks.train import SHARED

EVERYBODY = "all"


@step("decide-promotion", version=2)
def decide(
    step: Step,
    corpus: ArtifactRef,
    challenger: ArtifactRef,
    champion: ArtifactRef | None,
    champion_corpus: ArtifactRef | None,
    evaluation: ArtifactRef,
    retention: ArtifactRef,
    method: str,
    target: str,
    annotators: list[str],
    task: TaskSpec,
    config: EvaluationConfig,
    promotion: PromotionConfig,
    require_consent: bool,
) -> ArtifactRef:
    """Return the decision on a challenger, criterion by criterion.

    Args:
        step: set by the decorator.
        corpus: the challenger's.
        challenger: its generations.
        champion: the champion's generations for the same items and seed; None where there is no champion.
        champion_corpus: what the champion learned from.
        evaluation: the challenger's.
        retention: the challenger's.
        method: of the challenger.
        target: whom it imitates, or shared.
        annotators: for whom it answers.
        task: what is asked.
        config: how to measure.
        promotion: the bars.
        require_consent: whether people who state no scope stand in the way too.
    """
    frame = step.read(corpus)
    person = EVERYBODY if target == SHARED else target
    metrics = step.read(evaluation).filter(pl.col("method").is_in([method, "human"]))
    comparisons = None
    if champion is not None and champion_corpus is not None:
        found = _compare(step, frame, challenger, champion, champion_corpus, task, config)
        if found is None:
            table = refuse_incomparable("there is no held-out item that the champion has not learned from")
            return step.write("promotion", {"data.parquet": table}, metadata={"target": target, "is_promoted": False})
        metrics, comparisons = found.first, found.comparisons
    table = decide_promotion(
        metrics, comparisons, step.read(retention), read_consent(frame, annotators), person,
        frame["annotator_id"].n_unique(), promotion, require_consent=require_consent,
    )  # fmt: skip
    for reason, holds in table.select("reason", "holds").iter_rows():
        step.logger.info("%s: %s: %s", target, "holds" if holds else "does not hold", reason)
    is_promoted = bool(table["holds"].all())
    return step.write("promotion", {"data.parquet": table}, metadata={"target": target, "is_promoted": is_promoted})


def _compare(
    step: Step,
    corpus: pl.DataFrame,
    challenger: ArtifactRef,
    champion: ArtifactRef,
    champion_corpus: ArtifactRef,
    task: TaskSpec,
    config: EvaluationConfig,
) -> RunComparison | None:
    split = corpus.join(step.read(challenger), on="item_id", how="semi")["split"][0]
    # Validation items chose nothing where test is asked about, and may have where validation is.
    learned = step.read(champion_corpus).filter(pl.col("split") != split)["item_id"].unique()
    return compare_with_champion(corpus, step.read(challenger), step.read(champion), learned, task, config)


@task(name="promote", task_run_name="promote {version.name}", cache_policy=NO_CACHE, persist_result=False)
def apply_decision(version: Version, decision: ArtifactRef) -> Version:
    """Make the version champion if the decision says so; keep the reasons with it either way."""
    store = ArtifactStore()
    reasons = store.read_table(decision)
    keep_decision(version, decision, store.metadata(decision)["is_promoted"], reasons.select("reason", "holds").rows())
    if not store.metadata(decision)["is_promoted"]:
        return version
    champion, _ = promote(version.name, version.number, "the gate: " + " | ".join(reasons["reason"]))
    return champion
