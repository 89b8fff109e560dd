"""The configuration of LLM judging: who judges, what is asked, how much."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.section import Section, Source
from schemas.training import ModelConfig


class LocalJudge(Section):
    """A model in this process, asked by constrained choice over the candidates' letters."""

    type: Literal["local"] = "local"
    model: ModelConfig | None = Field(default=None, description="default: the experiment's own base model")
    batch_size: int = Field(default=8, ge=1)


class OpenAIJudge(Section):
    """Any OpenAI-compatible chat endpoint."""

    type: Literal["openai"] = "openai"
    base_url: str = Field(pattern=r"^https?://", description="e.g. http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1)
    api_key_env: str | None = Field(default=None, description="name of the environment variable holding the key")
    timeout_seconds: float = Field(default=60.0, gt=0)
    max_attempts: int = Field(default=6, ge=1, le=6)
    n_concurrent: int = Field(default=4, ge=1)


class JudgeConfig(Section):
    """LLM attribution: references of every annotator, a group of explanations, which annotator wrote it."""

    backend: Annotated[LocalJudge | OpenAIJudge, Field(discriminator="type")] = LocalJudge()
    methods: tuple[Source, ...] = ("human", "zero_shot", "history", "profile", "sft", "capo")
    group_size: int = Field(default=3, ge=1)
    n_references: int = Field(default=3, ge=1, description="training explanations shown per annotator")
    n_groups: int = Field(
        default=4, ge=1, description="groups per annotator, method and seed; each asked in every rotation"
    )
    seed: int = 13

    def narrow(self, method: str) -> JudgeConfig:
        """Return the part that matters to one method, so that a change elsewhere does not make it stale."""
        return self.model_copy(update={"methods": (method,)})
