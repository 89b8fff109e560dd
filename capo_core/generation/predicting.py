"""Answers of a registered adapter to items nobody need have annotated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from capo_core.errors import RegistryError
from capo_core.generation.requests import GenerationRequest
from capo_core.generation.responses import generate_responses
from capo_core.models import load_policy, load_tokenizer
from capo_core.progress import Progress, silent
from capo_core.prompts import AnnotatorTag, build_prompt
from schemas.artifacts import ModelRef
from schemas.registry import AnsweringRecipe
from schemas.section import Decision


def predict(
    items: pl.DataFrame,
    annotators: Sequence[str],
    recipe: AnsweringRecipe,
    base: ModelRef,
    adapter_dir: Path,
    *,
    decision: Decision = "constrained",
    progress: Progress = silent,
) -> pl.DataFrame:
    """Return what the model answers in each person's place to each item, persons in the order given, then items.

    The same item, person and recipe get the same answer, whatever else is asked, up to rounding.

    Args:
        items: columns item_id, text_a, text_b.
        annotators: among those of the recipe.
        recipe: how the adapter is asked.
        base: the base model that the recipe names.
        adapter_dir: folder of the adapter.
        decision: how the label is decided, see `responses.generate_responses`.
        progress: called with answers done and in all.

    Returns:
        GENERATIONS frame.

    Raises:
        RegistryError: if the adapter does not answer for a person, or the base model's files are others.
    """
    unknown = sorted(set(annotators) - set(recipe.annotators))
    if unknown:
        raise RegistryError(f"{', '.join(unknown)}: the adapter answers for {', '.join(recipe.annotators)} only")
    check_base(base, recipe)
    texts = items.select("item_id", "text_a", "text_b").rows()
    requests = [
        GenerationRequest(
            item_id,
            annotator,
            build_prompt(recipe.task, text_a, text_b, tag=AnnotatorTag(annotator, recipe.tag) if recipe.tag else None),
        )
        for annotator in annotators
        for item_id, text_a, text_b in texts
    ]
    return generate_responses(
        load_policy(base, recipe.model, adapter_dir),
        load_tokenizer(base),
        requests,
        recipe.task,
        recipe.generation.model_copy(update={"decisions": (decision,)}),
        seed=recipe.seed,
        method=recipe.method,
        progress=progress,
    )


def check_base(base: ModelRef, recipe: AnsweringRecipe) -> None:
    """Raise RegistryError unless the base model's files are those that the adapter was trained on."""
    if base.fingerprint != recipe.fingerprint:
        raise RegistryError(
            f"{base.id}: its files are not those the adapter was trained on (fingerprint {base.fingerprint[:16]}, "
            f"expected {recipe.fingerprint[:16]}); use that version of the model"
        )
