"""The value profile of one annotator, written by the base model."""

from __future__ import annotations

from capo_core.models import load_policy, load_tokenizer
from capo_core.profiles import build_profile_request, find_flaw, write_profile
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import ProfileConfig, TaskSpec
from schemas.training import ModelConfig
from tasks.step import Step, step


@step("write-profile", version=1, uses_models=True)
def write_value_profile(
    step: Step,
    corpus: ArtifactRef,
    annotator_id: str,
    base: ModelRef,
    model: ModelConfig,
    task: TaskSpec,
    profile: ProfileConfig,
    seed: int,
) -> ArtifactRef:
    """Return what the base model writes of an annotator after reading training annotations."""
    request = build_profile_request(step.read(corpus), annotator_id, task, profile, seed)
    frame = write_profile(load_policy(base, model, None), load_tokenizer(base), request, task, profile, seed=seed)
    flaw = find_flaw(frame["profile"][0])
    step.logger.info("%s: from %d annotations, %s", step.label, frame["n_examples"][0], flaw or "readable")
    step.log_metrics(
        {
            "examples": float(frame["n_examples"][0]),
            "examples_left_out": float(len(request.annotations) - frame["n_examples"][0]),
            "tokens": float(frame["n_tokens"][0]),
            "flawed": float(flaw is not None),
        }
    )
    metadata = {"annotator_id": annotator_id, "seed": seed, "flaw": flaw}
    return step.write("value_profile", {"data.parquet": frame}, metadata=metadata)
