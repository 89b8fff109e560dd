"""What all parts of a configuration share: their base class, and the names that are a closed set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Method = Literal["zero_shot", "history", "profile", "sft", "capo"]
Source = Literal["human", "zero_shot", "history", "profile", "sft", "capo"]
Decision = Literal["sampled", "greedy", "constrained"]
Reduction = Literal[
    "none", "shared_words_masked", "content_words_masked", "embedding_minus_item_mean", "embedding_input_residual"
]
Normalisation = Literal["none", "surface"]
Classifier = Literal["ngrams", "embeddings"]
PairStrategy = Literal["all", "same_label", "different_label", "nearest", "farthest"]
PairWeighting = Literal["uniform", "style_distance", "validity", "relation"]
PreferenceLoss = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "apo_zero", "plackett_luce"]
TagPosition = Literal["last", "first"]
Subjectivity = Literal["manifest", "latent_pattern", "latent_projective"]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def flatten_keys(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten_keys(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
