"""Per target annotator: what SFT imitates and what CAPO prefers it over."""

from __future__ import annotations

from capo_core.preference_pairs import build_demonstrations, build_preferences
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import TaskSpec
from schemas.section import TagPosition
from schemas.training import PairConfig
from tasks.step import Step, step


@step("demonstrations", version=1)
def select_demonstrations(
    step: Step, corpus: ArtifactRef, annotator_id: str, task: TaskSpec, tag: TagPosition | None
) -> ArtifactRef:
    """Return the annotator's own responses to training and validation items."""
    frame = build_demonstrations(step.read(corpus), annotator_id, task, tag=tag)
    return step.write("demonstrations", {"data.parquet": frame}, metadata={"annotator_id": annotator_id})


@step("preferences", version=3, uses_models=True)
def pair_responses(
    step: Step,
    corpus: ArtifactRef,
    annotator_id: str,
    task: TaskSpec,
    pairs: PairConfig,
    tag: TagPosition | None,
    encoder: ModelRef | None = None,
) -> ArtifactRef:
    """Return the annotator's responses, each preferred over others' to the same item, and the pairs dropped.

    Only the strategies that compare embeddings are given an `encoder`, so that it makes no other pairs stale.
    """
    embed = None
    if encoder is not None:
        from capo_core.models import load_encoder

        embed = load_encoder(encoder)
    frame, drops = build_preferences(step.read(corpus), annotator_id, task, pairs, tag=tag, embed=embed)
    counts = dict(sorted(frame["relation"].value_counts().iter_rows()))
    dropped = dict(sorted(drops["reason"].value_counts().iter_rows()))
    step.logger.info("preferences %s: %s pairs, dropped %s", annotator_id, counts, dropped)
    step.log_metrics({**{f"pairs_{k}": float(v) for k, v in counts.items()}, "dropped": float(drops.height)})
    return step.write(
        "preferences",
        {"data.parquet": frame, "drops.parquet": drops},
        metadata={"annotator_id": annotator_id, "pairs": counts, "drops": dropped},
    )
