"""The configuration of LLM judging: who judges, what is asked, how much."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.section import Normalisation, Section, Seed, Source
from schemas.training import ModelConfig

Protocol = Literal["attribution", "pairwise", "same_author"]


class LocalJudge(Section):
    """A model in this process, asked by constrained choice over the candidates' letters."""

    type: Literal["local"] = "local"
    model: ModelConfig | None = Field(default=None, description="default: the experiment's own base model")
    batch_size: int = Field(default=8, ge=1)

    @property
    def judge(self) -> dict[str, Any]:
        """What a verdict depends on."""
        return self.model_dump(mode="json")


class OpenAIJudge(Section):
    """Any OpenAI-compatible chat endpoint."""

    type: Literal["openai"] = "openai"
    base_url: str = Field(
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        description="e.g. http://127.0.0.1:8000/v1; no user, password or query, because it is kept with every verdict",
    )
    model: str = Field(min_length=1)
    api_key_env: str | None = Field(default=None, description="name of the environment variable holding the key")
    api_key_block: str | None = Field(
        default=None, min_length=1, description="or of the Prefect block of type Secret that holds it"
    )
    timeout_seconds: float = Field(default=60.0, gt=0, description="of one attempt")
    deadline_seconds: float = Field(default=180.0, gt=0, description="of a question, all attempts and pauses together")
    max_attempts: int = Field(default=6, ge=1, le=6)
    n_concurrent: int = Field(default=4, ge=1)
    max_tokens_spent: int | None = Field(
        default=None, ge=1, description="prompt and answer tokens after which no further question is asked"
    )
    max_cost: float | None = Field(default=None, gt=0, description="likewise, in the currency of the prices")
    price_per_million_prompt_tokens: float | None = Field(default=None, ge=0)
    price_per_million_answer_tokens: float | None = Field(default=None, ge=0)

    @property
    def judge(self) -> dict[str, str]:
        """What a verdict depends on: which model, where. The rest limits how long, how often and how much is asked."""
        return {"type": self.type, "base_url": self.base_url, "model": self.model}

    @model_validator(mode="after")
    def _the_key_is_in_one_place(self) -> Self:
        if self.api_key_env is not None and self.api_key_block is not None:
            raise ValueError("the key is in api_key_env or in api_key_block; set one of them to null")
        return self

    @model_validator(mode="after")
    def _a_cost_limit_has_prices(self) -> Self:
        prices = (self.price_per_million_prompt_tokens, self.price_per_million_answer_tokens)
        if self.max_cost is not None and None in prices:
            raise ValueError("max_cost needs price_per_million_prompt_tokens and price_per_million_answer_tokens")
        return self


class JudgeConfig(Section):
    """What language models are asked about groups of explanations, and which models."""

    backends: tuple[Annotated[LocalJudge | OpenAIJudge, Field(discriminator="type")], ...] = Field(
        default=(LocalJudge(),), min_length=1, description="each is asked the same questions"
    )
    protocols: tuple[Protocol, ...] = Field(
        default=("attribution", "pairwise", "same_author"),
        min_length=1,
        description="attribution: which annotator wrote this group; pairwise: which of two groups is closer to an "
        "annotator's references; same_author: did the author of the references write this group",
    )
    methods: tuple[Source, ...] = ("human", "zero_shot", "history", "profile", "sft", "capo")
    normalisations: tuple[Normalisation, ...] = Field(
        default=("none", "surface"), min_length=1, description="surface: groups and references without surface habits"
    )
    group_size: int = Field(default=3, ge=1)
    n_references: int = Field(default=3, ge=1, description="training explanations shown per annotator")
    n_groups: int = Field(
        default=4, ge=1, description="groups per annotator, method and seed, each asked in every order"
    )
    n_orders: int | None = Field(
        default=None, ge=2, description="attribution: rotations of the candidates, evenly spaced; null for all"
    )
    seed: Seed = 13

    def narrow(self, method: str) -> JudgeConfig:
        """Return the part that matters to one method, so that a change elsewhere does not make it stale."""
        return self.model_copy(update={"methods": (method,)})
