"""What all parts of a configuration share: their base class, and the names that are a closed set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

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
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]

MAX_INTEGER = 2**53
"""The largest magnitude of a whole number that JSON, tables and floats all hold exactly."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _values_are_written_as_what_they_are(cls, content: Any) -> Any:
        """Refuse what pydantic would read as something else (`"3"` and `true` as numbers), and what cannot be kept."""
        if not isinstance(content, Mapping):
            return content
        faults: list[InitErrorDetails] = []
        for name, value in content.items():
            field = cls.model_fields.get(name)
            kinds, names = (frozenset(), frozenset()) if field is None else _plain_kinds(field.annotation)
            several = isinstance(value, list | tuple)
            for place, part in enumerate(value if several else [value]):
                reason = None if isinstance(part, str) and part in names else _find_fault(part, kinds)
                if reason is not None:
                    told = PydanticCustomError("written_otherwise", "{reason}", {"reason": reason})
                    faults.append(InitErrorDetails(type=told, loc=(name, place) if several else (name,), input=part))
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return content


def _plain_kinds(annotation: Any) -> tuple[frozenset[type], frozenset[Any]]:
    """Return which of bool, int, float and str a field's values or their elements may be, and which names besides."""
    if annotation in (bool, int, float, str):
        return frozenset({annotation}), frozenset()
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return frozenset(), frozenset(arguments)
    parts = [_plain_kinds(argument) for argument in arguments]
    return frozenset().union(*(kinds for kinds, _ in parts)), frozenset().union(*(names for _, names in parts))


def _find_fault(value: Any, kinds: frozenset[type]) -> str | None:
    """Return why a plain value is not one of the kinds that are meant, or cannot be held by files and tables."""
    if isinstance(value, str) and ("\0" in value or _HALF_CHARACTER.search(value)):
        return "Input holds a character that cannot be stored"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return f"Input should be from -{MAX_INTEGER} to {MAX_INTEGER}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if (isinstance(value, bool | str) and kinds and type(value) not in kinds) or (is_number and kinds == {bool}):
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        meant = " or ".join(name for kind, name in names.items() if kind in kinds)
        return f"Input should be {meant}, not in quotes" if isinstance(value, str) else f"Input should be {meant}"
    return None


def flatten_keys(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten_keys(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
