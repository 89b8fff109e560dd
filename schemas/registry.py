"""What a registered model carries beside its adapter: all that is needed to answer as its person would."""

from __future__ import annotations

from pydantic import Field

from schemas.artifacts import ArtifactRef
from schemas.config import GenerationConfig, TaskSpec
from schemas.section import Method, Section, Slug, TagPosition
from schemas.training import ModelConfig


class AnsweringRecipe(Section):
    """How the adapter of one version is asked, as it was asked when it was evaluated.

    Attributes:
        corpus: name of the corpus.
        target: the person imitated, or `shared`.
        annotators: the people that the adapter answers for.
        method: `sft` or `capo`.
        seed: of training and of the evaluated generations.
        task: what is asked.
        model: the base model.
        fingerprint: of the base model's files.
        tag: where prompts name the annotator; None for an adapter of one person.
        generation: how responses are drawn.
        adapter: the adapter's artifact.
        corpus_version: the corpus with its splits that it was trained on.
        evaluation: what it was measured to be.
        retention: what it leaves of the base model, where that was measured.
    """

    corpus: Slug
    target: str
    annotators: tuple[str, ...] = Field(min_length=1)
    method: Method
    seed: int
    task: TaskSpec
    model: ModelConfig
    fingerprint: str
    tag: TagPosition | None
    generation: GenerationConfig
    adapter: ArtifactRef
    corpus_version: ArtifactRef
    evaluation: ArtifactRef
    retention: ArtifactRef | None = None
