"""What an adapter leaves of the base model."""

from __future__ import annotations

from capo_core.evaluation.retention import ModelProbe, probe_model, retention_table
from capo_core.models import load_policy, load_tokenizer
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import TaskSpec
from schemas.frames import RETENTION, empty
from schemas.training import ModelConfig
from tasks.step import Step, step


@step("probe-base", version=1, uses_models=True)
def probe_base(
    step: Step, corpus: ArtifactRef, base: ModelRef, model: ModelConfig, task: TaskSpec, split: str, batch_size: int
) -> ArtifactRef:
    """Return what the base model makes of neutral texts and zero-shot prompts, once for all its adapters.

    The table is empty, there being nothing to compare yet; the figures stand in the metadata under `probe`.
    """
    probe = probe_model(
        load_policy(base, model, None), load_tokenizer(base), step.read(corpus), split, task,
        batch_size=batch_size, progress=step.progress,
    )  # fmt: skip
    return step.write("retention", {"data.parquet": empty(RETENTION)}, metadata={"probe": probe.to_json()})


@step("measure-retention", version=1, uses_models=True)
def compare_with_base(
    step: Step,
    corpus: ArtifactRef,
    adapter: ArtifactRef,
    base_probe: ArtifactRef,
    method: str,
    target: str,
    base: ModelRef,
    model: ModelConfig,
    task: TaskSpec,
    split: str,
    batch_size: int,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> ArtifactRef:
    """Return an adapter's perplexity of neutral text and zero-shot decisions beside the base model's."""
    frame = step.read(corpus)
    tuned = probe_model(
        load_policy(base, model, step.folder(adapter)), load_tokenizer(base), frame, split, task,
        batch_size=batch_size, progress=step.progress,
    )  # fmt: skip
    before = ModelProbe.from_json(step.store.metadata(base_probe)["probe"])
    table = retention_table(
        before, tuned, frame, method=method, target=target, seed=seed, n_bootstrap=n_bootstrap, confidence=confidence
    )
    step.log_metrics({f"{row['metric']}_change": row["change"] for row in table.iter_rows(named=True)})
    return step.write("retention", {"data.parquet": table}, metadata={"method": method, "target": target, "seed": seed})
