"""What the cards of an exported data set or adapter say beyond what was measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.section import Section

NOT_STATED = "not stated"

Statement = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class ReleaseConfig(Section):
    """What only those who collected the annotations know; cards carry it word for word. No figure depends on it."""

    collection: Statement = Field(
        default=NOT_STATED, description="how, when, where and from whom the annotations were collected; Markdown"
    )
    consent: Statement = Field(
        default=NOT_STATED,
        description="what the annotators agreed to, and how they withdraw; Markdown. Not stated: no data set is "
        "exported unless forced",
    )
    licence: Statement = Field(
        default=NOT_STATED, description="SPDX licence expression of what is exported, e.g. CC-BY-4.0"
    )
    contact: Statement = Field(default=NOT_STATED, description="whom to write to, withdrawal included")
    audience: Literal["public", "restricted"] = Field(
        default="public",
        description="who gets what is exported: everybody, or those who signed for it; the public gets no metadata of "
        "annotators that fewer than 11 share, unless forced",
    )
    annotator_columns: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        default=(), description="metadata of annotators that a data set publishes, e.g. [age_group]; none by default"
    )
    citation: Statement = Field(default=NOT_STATED, description="how to cite the data set, e.g. as BibTeX")


def is_stated(statement: str) -> bool:
    """Return whether a statement says anything."""
    return statement.casefold().rstrip(".") != NOT_STATED
