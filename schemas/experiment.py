"""The matrix of an experiment: which corpora, methods, layouts, pair strategies and seeds are compared.

`deployments/experiments/<name>.yaml` holds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from schemas.config import ExperimentConfig
from schemas.section import Method, Section, Seed, Slug, flatten_keys
from schemas.training import PairConfig

Layout = Literal["per_annotator", "shared"]
Overrides = dict[str, JsonValue]


class Recipe(Section):
    """Overrides for some arms: those of a corpus, of a layout, or of one under the other."""

    corpus: Slug | None = Field(default=None, description="corpus.name of the arms; null: any")
    layout: Layout | None = Field(default=None, description="adapter.layout of the arms; null: any")
    set: Overrides = Field(min_length=1, description="applied to the configurations of these arms")

    @field_validator("set", mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        return flatten_keys(value) if isinstance(value, Mapping) else value

    def applies_to(self, corpus: str, layout: str) -> bool:
        """Return whether an arm of this corpus and layout is among those meant."""
        return self.corpus in (None, corpus) and self.layout in (None, layout)


class ExperimentMatrix(Section):
    """What is compared. A cell is one configuration × layout × pair strategy × seed; an arm is its cells of all seeds.

    Overrides are dotted keys of the configurations, as the command line's `--set` takes them, or nested sections; a
    recipe wins over `overrides`, a later recipe over an earlier one.
    """

    name: Slug = Field(description="names the MLflow experiment and the results table")
    configs: tuple[str, ...] = Field(
        min_length=1, description="experiment configurations (corpus × model), relative to the matrix's own file"
    )
    overrides: Overrides = Field(default={}, description="applied to every configuration")
    recipes: tuple[Recipe, ...] = Field(
        default=(), description="what holds for some arms; one adapter for all takes other rates than one for each"
    )
    methods: tuple[Method, ...] = Field(default=("zero_shot", "history", "profile", "sft", "capo"), min_length=1)
    layouts: tuple[Layout, ...] = Field(default=("per_annotator",), min_length=1)
    pair_strategies: tuple[PairConfig, ...] = Field(
        default=(PairConfig(),),
        min_length=1,
        description="a strategy's name, or a section `pairs`; what needs judgements only corpora that have them get",
    )
    seeds: tuple[Seed, ...] = Field(default=(13,), min_length=1)
    transfer: bool = Field(
        default=False,
        description="whether each arm's adapters also answer the other corpora's held-out items (two corpora or more)",
    )

    @field_validator("overrides", mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        return flatten_keys(value) if isinstance(value, Mapping) else value

    @field_validator("pair_strategies", mode="before")
    @classmethod
    def _name_alone_is_a_strategy(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"strategy": entry} if isinstance(entry, str) else entry for entry in value]

    @model_validator(mode="after")
    def _nothing_stands_twice(self) -> Self:
        for name in ("configs", "methods", "layouts", "pair_strategies", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: each may stand once only")
        return self


class Arm(Section):
    """The cells of all seeds of one configuration × layout × pair strategy.

    Attributes:
        config: everything about it; `seeds` are those of its cells.
    """

    config: ExperimentConfig

    @property
    def identity(self) -> dict[str, str]:
        """Columns `corpus`, `model`, `layout` and `pair_strategy` of the results table."""
        return {
            "corpus": self.config.corpus.name,
            "model": self.config.model.id,
            "layout": self.config.adapter.layout,
            "pair_strategy": name_strategy(self.config.pairs),
        }

    @property
    def label(self) -> str:
        """A name that no other arm of the experiment has."""
        return " · ".join(self.identity.values())


def name_strategy(pairs: PairConfig) -> str:
    """Return what results call a pair strategy: its name, then what else it asks of pairs."""
    parts: list[str] = [pairs.strategy]
    if pairs.min_validity is not None:
        parts.append(f"validity >= {pairs.min_validity:g}")
    if pairs.weighting == "relation":
        parts.append(f"same label weighs {pairs.same_label_weight:g}")
    elif pairs.weighting != "uniform":
        parts.append(f"weighted by {pairs.weighting}")
    return ", ".join(parts)
