"""The configuration of the rating set that people judge."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from schemas.section import Section, Seed, Source


class HumanValidationConfig(Section):
    """The blinded rating set, and which raters' answers count."""

    methods: tuple[Source, ...] = ("human", "sft", "capo")
    n_tasks: int = Field(default=48, ge=1, description="rated tasks, over all methods and annotators")
    n_attention: int = Field(
        default=4, ge=0, description="attention checks besides: the answer stands in the references word for word"
    )
    n_repeated: int = Field(default=4, ge=0, description="rated tasks shown a second time, letters reshuffled")
    n_raters: int = Field(default=3, ge=1, description="raters planned for: each gets an order of their own")
    group_size: int = Field(default=3, ge=1)
    n_references: int = Field(default=3, ge=1)
    min_attention_passed: float = Field(
        default=0.75, ge=0, le=1, description="raters who pass a smaller share of their attention checks are excluded"
    )
    min_self_consistency: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="likewise for the share of repeats answered alike; 0 excludes nobody, as hard tasks make honest "
        "raters inconsistent",
    )
    min_median_seconds: float = Field(
        default=3.0, ge=0, description="likewise for the median time per task, where it was recorded"
    )
    consent_path: str | None = Field(
        default=None, description="Markdown with the consent text; null: a template whose placeholders are to be filled"
    )
    seed: Seed = 13

    @model_validator(mode="after")
    def _checks_can_be_seen_in_the_references(self) -> Self:
        if self.n_attention and self.n_references < self.group_size:
            raise ValueError(
                f"n_references {self.n_references} is less than group_size {self.group_size}: an attention check shows "
                "explanations that stand in the references; raise n_references or set n_attention to 0"
            )
        return self
