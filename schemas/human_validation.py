"""The configuration of the rating set that people judge."""

from __future__ import annotations

from pydantic import Field

from schemas.section import Section, Source


class HumanValidationConfig(Section):
    """The blinded rating set."""

    methods: tuple[Source, ...] = ("human", "sft", "capo")
    n_tasks: int = Field(default=48, ge=1)
    group_size: int = Field(default=3, ge=1)
    n_references: int = Field(default=3, ge=1)
    seed: int = 13
