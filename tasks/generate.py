"""Responses of one method, imitating one annotator, to held-out items."""

from __future__ import annotations

from capo_core.generation.requests import build_requests
from capo_core.generation.responses import generate_responses
from capo_core.models import load_policy, load_tokenizer
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import GenerationConfig, TaskSpec
from schemas.section import Method, TagPosition
from schemas.training import ModelConfig
from tasks.step import Step, step


@step("generate", version=2, uses_models=True)
def generate_method(
    step: Step,
    corpus: ArtifactRef,
    adapter: ArtifactRef | None,
    profile: ArtifactRef | None,
    method: Method,
    annotator_id: str | None,
    base: ModelRef,
    model: ModelConfig,
    task: TaskSpec,
    generation: GenerationConfig,
    tag: TagPosition | None,
    seed: int,
) -> ArtifactRef:
    """Return a response to every held-out item for each configured decision."""
    requests = build_requests(
        step.read(corpus), method, annotator_id, task, generation,
        tag=tag, seed=seed, profile=step.read(profile)["profile"].item() if profile else None,
    )  # fmt: skip
    policy = load_policy(base, model, step.folder(adapter) if adapter else None)
    frame = generate_responses(
        policy, load_tokenizer(base), requests, task, generation, seed=seed, method=method, progress=step.progress
    )
    n_parsed = frame.filter(frame["parse_status"] == "ok").height
    step.logger.info("%s: %d of %d responses parsed", step.label, n_parsed, frame.height)
    step.log_metrics({"responses": float(frame.height), "parsed": float(n_parsed)})
    return step.write("generations", {"data.parquet": frame}, metadata={"method": method, "annotator_id": annotator_id})
