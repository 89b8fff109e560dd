"""Agreement between annotators and stability of each one's way of explaining."""

from __future__ import annotations

from capo_core.agreement import agreement_table
from capo_core.models import load_encoder
from capo_core.stylometry.separability import stability_table
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import StabilityConfig, TaskSpec
from tasks.step import Step, step


@step("analyze-agreement", version=1)
def analyze_agreement(step: Step, corpus: ArtifactRef, task: TaskSpec, n_bootstrap: int, seed: int) -> ArtifactRef:
    """Return Krippendorff's α, pairwise κ and percent agreement with intervals."""
    table = agreement_table(step.read(corpus), task.labels.level, n_bootstrap=n_bootstrap, seed=seed)
    step.log_metrics({row["metric"]: row["value"] for row in table.iter_rows(named=True) if row["annotator_a"] is None})
    return step.write("agreement", {"data.parquet": table})


@step("analyze-stability", version=1, uses_models=True)
def analyze_stability(step: Step, corpus: ArtifactRef, encoder: ModelRef, config: StabilityConfig) -> ArtifactRef:
    """Return attribution accuracy of held-out human text by reduction and group size, with its control."""
    table = stability_table(step.read(corpus), config, load_encoder(encoder), progress=step.progress)
    step.log_metrics(
        {
            f"{row['condition']}/{row['reduction']}/{row['normalisation']}/k{row['group_size']}": row["accuracy"]
            for row in table.iter_rows(named=True)
        }
    )
    return step.write("stability", {"data.parquet": table})
