"""What the people's own annotations show: agreement, stability of each one's style, and how both settle."""

from __future__ import annotations

import polars as pl

from capo_core.agreement import agreement_table, item_labels
from capo_core.batches.drift import ANY_FEATURE, LABELS, drift_table
from capo_core.convergence import convergence_table
from capo_core.errors import CorpusError
from capo_core.models import load_encoder
from capo_core.stylometry.separability import stability_table
from capo_core.stylometry.style_table import style_tables
from capo_core.subjectivity import propose_subjectivity
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import ConvergenceConfig, StabilityConfig, TaskSpec
from tasks.step import Step, step
from tasks.storage.artifact_store import ArtifactStore


@step("analyze-agreement", version=2)
def analyze_agreement(step: Step, corpus: ArtifactRef, task: TaskSpec, n_bootstrap: int, seed: int) -> ArtifactRef:
    """Return α, κ, label entropy and divergence with intervals, each item's labels, and the task's class."""
    annotations = step.read(corpus)
    table = agreement_table(
        annotations, task.labels.level, multiple_labels=task.multiple_labels, n_bootstrap=n_bootstrap, seed=seed
    )
    subjectivity = propose_subjectivity(table, task.labels.level, task.subjectivity)
    step.log_metrics({row["metric"]: row["value"] for row in table.iter_rows(named=True) if row["annotator_a"] is None})
    step.logger.info("subjectivity: %s", subjectivity["rule"][0])
    return step.write(
        "agreement",
        {"data.parquet": table, "items.parquet": item_labels(annotations), "subjectivity.parquet": subjectivity},
        metadata={"subjectivity": subjectivity["subjectivity"][0]},
    )


@step("analyze-stability", version=4, uses_models=True)
def analyze_stability(step: Step, corpus: ArtifactRef, encoder: ModelRef, config: StabilityConfig) -> ArtifactRef:
    """Return attribution accuracy of held-out human text by reduction and group size, with its controls."""
    table, annotators = stability_table(step.read(corpus), config, load_encoder(encoder), progress=step.progress)
    together = table.filter(pl.col("stratum").is_null())
    step.log_metrics(
        {
            f"{row['condition']}/{row['reduction']}/{row['normalisation']}/{row['classifier']}/k{row['group_size']}":
            row["accuracy"]
            for row in together.iter_rows(named=True)
        }
    )  # fmt: skip
    return step.write("stability", {"data.parquet": table, "annotators.parquet": annotators})


@step("analyze-style", version=1)
def analyze_style(step: Step, corpus: ArtifactRef, config: StabilityConfig) -> ArtifactRef:
    """Return what each annotator's style consists of: tests per feature, reliability, profile, words, examples."""
    tables = style_tables(step.read(corpus), config, progress=step.progress)
    step.log_metrics(
        {f"annotator_variance/{row['feature']}": row["variance_annotator"] for row in tables.features.rows(named=True)}
    )
    return step.write(
        "style",
        {
            "data.parquet": tables.features,
            "reliability.parquet": tables.reliability,
            "annotators.parquet": tables.annotators,
            "words.parquet": tables.words,
            "examples.parquet": tables.examples,
        },
    )


@step("measure-drift", version=1)
def measure_drift(step: Step, before: ArtifactRef, after: ArtifactRef, config: StabilityConfig) -> ArtifactRef:
    """Return how each annotator's new annotations differ in style and labels from the ones before."""
    table = drift_table(step.read(before), step.read(after), n_permutations=config.n_permutations, seed=config.seed)
    for row in table.filter(pl.col("feature").is_in([ANY_FEATURE, LABELS])).iter_rows(named=True):
        step.logger.info(
            "drift of %s, %s: p = %s over %d items before and %d after",
            row["annotator_id"], row["feature"], "not measured" if row["p_value"] is None else f"{row['p_value']:.4f}",
            row["n_before"], row["n_after"],
        )  # fmt: skip
        step.log_metrics({f"drift/{row['feature']}/{row['annotator_id']}": row["p_value"]})
    return step.write("drift", {"data.parquet": table})


@step("analyze-convergence", version=2)
def analyze_convergence(step: Step, corpus: ArtifactRef, task: TaskSpec, config: ConvergenceConfig) -> ArtifactRef:
    """Return how agreement, label distribution and attribution settle as annotations accrue, and how many more."""
    level = "masi" if task.multiple_labels else task.labels.level
    table, fits = convergence_table(step.read(corpus), level, config, progress=step.progress)
    for advice in fits["advice"]:
        step.logger.info("convergence: %s", advice)
    return step.write("convergence", {"data.parquet": table, "fits.parquet": fits})


def read_needed_annotations(convergence: ArtifactRef) -> int:
    """Return from how many items of an annotator on attribution's interval is as narrow as the configuration asks.

    Raises:
        CorpusError: if no number of items would do, as far as these data tell.
    """
    fits = ArtifactStore().read_table(convergence, "fits.parquet").filter(quantity="attribution_accuracy", axis="items")
    needed = fits["n_needed"].drop_nulls().to_list()
    if not needed:
        advice = "; ".join(fits["advice"]) or "attribution could not be followed"
        raise CorpusError(f"{advice}: no minimum for an adapter follows from it; state batches.min_annotations")
    return needed[0]
