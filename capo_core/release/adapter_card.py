"""The card of a published adapter: the one written when it was trained, and all that strangers need besides."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import polars as pl
from huggingface_hub import ModelCard, ModelCardData

from capo_core.generation.vllm.rules import Servability
from capo_core.prompts import AnnotatorTag, build_prompt, response_text
from capo_core.release.base_model import PublicBase
from capo_core.release.card import licence_fields, render_card
from capo_core.report.formats import (
    DOES_NOT_APPLY,
    NOT_MEASURED,
    format_count,
    format_difference,
    format_estimate,
    format_interval,
    format_value,
)
from capo_core.report.terms import floor_of
from capo_core.results import FIGURES, Figure
from schemas.registry import AnsweringRecipe
from schemas.release import ReleaseConfig

ALL = "all"

_RETENTION_TITLES = {
    "neutral_perplexity": "Perplexity of neutral text (change: ratio)",
    "zero_shot_label_agreement": "Label agreement, zero-shot prompt",
    "zero_shot_decision_kept": "Zero-shot decisions kept",
}


@dataclass(frozen=True)
class AdapterFacts:
    """All that a card says of an adapter.

    Attributes:
        name: what it is called in public.
        trained_card: the card written when it was trained.
        recipe: how it is asked, people named as they are in public.
        person: whose figures are shown, as `metrics` names them; `all` for a shared adapter.
        base: what its base model is called in public.
        serving: whether vLLM takes it.
        metrics: `METRICS` of its evaluation; None where that is not at hand.
        retention: `RETENTION`; None where it was not measured.
        release: stated word for word.
        forced: why it was exported although something stood against it; None where nothing did.
    """

    name: str
    trained_card: str
    recipe: AnsweringRecipe
    person: str
    base: PublicBase
    serving: Servability
    metrics: pl.DataFrame | None
    retention: pl.DataFrame | None
    release: ReleaseConfig
    forced: str | None


def render_adapter_card(facts: AdapterFacts, base_id: str) -> str:
    """Return the card of an adapter as Markdown with the header that the hub and PEFT read.

    Args:
        facts: what it says.
        base_id: what the card written in training calls the base model.

    Raises:
        ReleaseError: if the licence is no SPDX expression.
    """
    recipe, base = facts.recipe, facts.base
    written = ModelCard(facts.trained_card, ignore_metadata_errors=True)
    title, _, trained = written.text.strip().partition("\n")
    revision = f', revision="{base.revision}"' if base.revision else ""
    tag = AnnotatorTag("ANNOTATOR", recipe.tag) if recipe.tag else None
    context = {
        "title": title,
        # Both the folder of a local model and a bundled model's id mean nothing to others.
        "trained": trained.replace(f"`{base_id}`", f"`{base.id}`").strip(),
        "forced": facts.forced,
        "is_shared": recipe.tag is not None,
        "annotators": recipe.annotators,
        "corpus": recipe.corpus,
        "name": facts.name,
        "base": base,
        "located": f'"{base.id}"{revision}',
        "dtype": recipe.model.dtype,
        "serving": facts.serving,
        "messages": json.dumps(build_prompt(recipe.task, "TEXT A", "TEXT B", tag=tag), indent=1, ensure_ascii=False),
        "response": response_text("LABEL", "EXPLANATION"),
        "labels": recipe.task.labels.names,
        "generation": recipe.generation,
        "seed": recipe.seed,
        "figures": None if facts.metrics is None else tabulate_figures(facts.metrics, recipe.method, facts.person),
        "retention": [] if facts.retention is None else tabulate_retention(facts.retention),
        "release": facts.release,
    }
    header = ModelCardData(
        base_model=base.id,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=written.data.to_dict()["tags"],
        **licence_fields(facts.release),
    )
    return render_card("adapter_card.md.j2", header, context)


def tabulate_figures(metrics: pl.DataFrame, method: str, person: str) -> list[list[str]]:
    """Return per figure: its name, the method's value with interval, ceiling, floor, n and seeds.

    Args:
        metrics: `METRICS`.
        method: of the adapter.
        person: as `annotator_id` there.
    """
    rows = []
    for figure in FIGURES:
        own = _find(metrics, figure, method, person, figure.condition)
        ceiling = _find(metrics, figure, "human", person, figure.condition)
        if figure.metric == "attribution_accuracy" and figure.condition is not None:
            floor = _find(metrics, figure, "human", person, floor_of(figure.condition))
        else:
            floor = _find(metrics, figure, "majority", person, figure.condition)
        counts = [DOES_NOT_APPLY] * 2 if own is None else [format_count(own["n"]), format_count(own["n_seeds"])]
        value = NOT_MEASURED if own is None else _estimate(own, figure)
        bounds = [DOES_NOT_APPLY if row is None else _estimate(row, figure) for row in (ceiling, floor)]
        rows.append([figure.title, value, *bounds, *counts])
    return rows


def tabulate_retention(retention: pl.DataFrame) -> list[list[str]]:
    """Return per quantity: its name, the base model's value, the tuned one's, the change with interval, n."""
    return [
        [
            _RETENTION_TITLES.get(row["metric"]) or str(row["metric"]),
            format_value(row["base"]),
            format_value(row["tuned"]),
            f"{_change(row)} {format_interval(row['ci_low'], row['ci_high'])}".strip(),
            format_count(row["n"]),
        ]
        for row in retention.iter_rows(named=True)
    ]


def _change(row: dict[str, Any]) -> str:
    """Return a change: a ratio for perplexity, else a difference with its sign."""
    return format_value(row["change"]) if row["metric"] == "neutral_perplexity" else format_difference(row["change"])


def _estimate(row: dict[str, Any], figure: Figure) -> str:
    return format_estimate(row["value"], row["ci_low"], row["ci_high"], share=figure.share)


def _find(
    metrics: pl.DataFrame, figure: Figure, method: str, person: str, condition: str | None
) -> dict[str, Any] | None:
    """Return the row of a figure, None where there is none; people's own rows have no decision."""
    rows = metrics.filter(
        pl.col("condition").eq_missing(condition),
        pl.col("classifier").eq_missing(figure.classifier),
        pl.col("group_size").eq_missing(figure.group_size),
        method=method,
        annotator_id=person,
        metric=figure.metric,
    )
    for decision in (figure.decision, None):
        found = rows.filter(pl.col("decision").eq_missing(decision))
        if found.height:
            return found.row(0, named=True)
    return None
