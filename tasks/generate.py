"""Responses of one model to held-out items, in the place of one annotator or, a shared adapter's, of all."""

from __future__ import annotations

from capo_core.generation.engines import generate
from capo_core.generation.requests import build_requests
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import GenerationConfig, TaskSpec
from schemas.section import Method, TagPosition
from schemas.training import ModelConfig
from tasks.step import Step, step


@step("generate", version=3, uses_models=True)
def generate_method(
    step: Step,
    corpus: ArtifactRef,
    adapter: ArtifactRef | None,
    profile: ArtifactRef | None,
    method: Method,
    target: str,
    annotators: list[str | None],
    base: ModelRef,
    model: ModelConfig,
    task: TaskSpec,
    generation: GenerationConfig,
    tag: TagPosition | None,
    seed: int,
) -> ArtifactRef:
    """Return a response for every annotator, held-out item and configured decision."""
    profiles = dict(step.read(profile).select("annotator_id", "profile").iter_rows()) if profile else None
    requests = build_requests(
        step.read(corpus), method, annotators, task, generation, tag=tag, seed=seed, profiles=profiles
    )
    folder = step.folder(adapter) if adapter else None
    generated = generate(
        base, model, folder, requests, task, generation, seed=seed, method=method, progress=step.progress
    )
    frame = generated.responses
    n_parsed = frame.filter(frame["parse_status"] == "ok").height
    step.logger.info("%s: %d of %d responses parsed", step.label, n_parsed, frame.height)
    step.log_metrics({"responses": float(frame.height), "parsed": float(n_parsed)})
    metadata = {"method": method, "target": target, "engine": generated.engine}
    return step.write("generations", {"data.parquet": frame}, metadata=metadata)
