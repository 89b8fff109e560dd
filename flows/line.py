"""What a run has so far, which every part of the line takes and adds to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prefect.futures import PrefectFuture

from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import ExperimentConfig
from schemas.section import Method, TagPosition
from schemas.training import EmbeddingConfig
from tasks.sources import locate_model
from tasks.storage.artifact_store import ArtifactStore
from tasks.train import SHARED

NOBODY = "nobody"
"""Whom zero-shot prompting imitates."""

Reference = PrefectFuture[ArtifactRef]


@dataclass
class Line:
    """What a run has so far: its configuration and the artifacts each stage has produced.

    Attributes:
        config: the experiment.
        flow_run_id: of the flow run.
        stages: names of the stages that the run goes through.
        run_id: of its run in MLflow, once there is one.
        artifacts: by name, in the order they were kept.
        annotators: everybody of whom models may be made.
        versions: the corpus's versions, the newest last; of each, whom models may be made of.
        n_left_out: people left out for want of consent, by what they are left out of; nothing where nobody is.
        refusing: who does not consent to modelling, and why.
        n_train: training annotations of each.
        trainable: annotators with annotations enough for an adapter.
    """

    config: ExperimentConfig
    flow_run_id: str
    stages: tuple[str, ...]
    run_id: str = ""
    artifacts: dict[str, ArtifactRef] = field(default_factory=dict)
    annotators: list[str] = field(default_factory=list)
    versions: list[ArtifactRef] = field(default_factory=list)
    n_left_out: dict[str, int] = field(default_factory=dict)
    refusing: dict[str, str] = field(default_factory=dict)
    n_train: dict[str, int] = field(default_factory=dict)
    trainable: list[str] = field(default_factory=list)
    _described: dict[ArtifactRef, dict[str, Any]] = field(default_factory=dict)
    _models: dict[tuple[str, str | None], ModelRef] = field(default_factory=dict)

    @property
    def analysed(self) -> ArtifactRef:
        """The newest version of the corpus, without those who do not consent to analysis."""
        return self.artifacts.get("corpus/analysis", self.artifacts["corpus"])

    @property
    def is_shared(self) -> bool:
        """Whether one adapter serves all annotators."""
        return self.config.adapter.layout == "shared"

    @property
    def tag(self) -> TagPosition | None:
        """Where prompts name the annotator, as a shared adapter needs."""
        return self.config.adapter.tag if self.is_shared else None

    @property
    def targets(self) -> list[str]:
        """What is trained for: every annotator with annotations enough, or one adapter that they share."""
        return [SHARED] if self.is_shared and self.trainable else self.trainable

    def answering(self, method: Method) -> list[tuple[str, list[str | None]]]:
        """Return under which names a method answers, each with the annotators in whose place it does."""
        if method == "zero_shot":
            return [(NOBODY, [None])]
        answering = self.trainable if method in ("sft", "capo") else self.shown
        if self.is_shared and method in ("sft", "capo"):
            # Together, so that an item's text is read once for all annotators.
            return [(SHARED, [*answering])] if answering else []
        return [(annotator, [annotator]) for annotator in answering]

    @property
    def shown(self) -> list[str]:
        """Annotators with something to show to a model in its prompt."""
        return [name for name in self.annotators if self.n_train[name]]

    def metadata_of(self, corpus: ArtifactRef) -> dict[str, Any]:
        """Return the metadata of a version of the corpus, verified once per run."""
        if corpus not in self._described:
            self._described[corpus] = ArtifactStore().metadata(corpus)
        return self._described[corpus]

    def members(self, target: str) -> list[str]:
        """Return the annotators whose responses a target's adapter is trained on."""
        return self.trainable if target == SHARED else [target]

    def history_of(self, target: str) -> list[ArtifactRef]:
        """Return the versions of the corpus that changed a target's data, the newest last.

        The newest is what the target's model is made from and asked about: a batch that does not concern an annotator
        changes nothing that was made for that annotator.
        """
        described = [self.metadata_of(version) for version in self.versions]
        if target in (SHARED, NOBODY):
            numbers = {about["version"] for about in described}
        else:
            numbers = {about["changed_in"][target] for about in described if target in about["changed_in"]}
        return [self.versions[number - 1] for number in sorted(numbers)]

    def corpus_of(self, target: str) -> ArtifactRef:
        """Return the version of the corpus that a target's model is made from."""
        return self.history_of(target)[-1]

    def model(self, model_id: str, revision: str | None) -> ModelRef:
        """Return a model's location, found once per run."""
        if (model_id, revision) not in self._models:
            self._models[model_id, revision] = locate_model(model_id, revision)
        return self._models[model_id, revision]

    def base(self) -> ModelRef:
        """Return the base model's location."""
        return self.model(self.config.model.id, self.config.model.revision)

    def encoder(self) -> ModelRef:
        """Return the sentence-embedding model's location."""
        embedding: EmbeddingConfig = self.config.embedding
        return self.model(embedding.id, embedding.revision)

    def keep(self, name: str, future: Reference) -> ArtifactRef:
        """Wait for a step and keep its artifact under a name."""
        self.artifacts[name] = future.result()
        return self.artifacts[name]

    def all_of(self, prefix: str) -> list[ArtifactRef]:
        """Return the kept artifacts whose name starts with `prefix/`, in the order they were kept."""
        return [ref for name, ref in self.artifacts.items() if name.startswith(f"{prefix}/")]
