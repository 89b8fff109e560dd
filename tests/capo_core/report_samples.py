"""A small report's data, made by hand: two people, four items, one of each kind of figure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from capo_core.report import ReportData
from schemas import frames
from schemas.config import ExperimentConfig

PEOPLE = ("ada", "ben")
ITEMS = tuple(f"{i:016x}" for i in range(4))


def frame(rows: list[tuple], columns: dict) -> pl.DataFrame:
    """Return rows in the order of `columns` as a frame of that kind."""
    return pl.DataFrame(rows, schema=columns, orient="row").cast(dict(columns))


def metric_row(
    method: str,
    metric: str,
    value: float | None,
    *,
    annotator: str = "all",
    decision: str | None = "sampled",
    condition: str | None = None,
    size: int | None = None,
    width: float = 0.05,
    n: int = 100,
    n_seeds: int = 1,
) -> tuple:
    """Return a METRICS row with an interval of `width` to either side."""
    ends = (None, None) if value is None else (value - width, value + width)
    return (method, annotator, decision, metric, condition, size, value, *ends, n, n_seeds)


def attribution_rows(annotator: str = "all") -> list[tuple]:
    """Return attribution for k = 5: human .93 (shuffled .27), SFT .71, CAPO .87; surface removed .86, .62, .78."""
    figures = [
        ("human", None, "raw", 0.93),
        ("human", None, "surface_normalised", 0.86),
        ("human", None, "shuffled", 0.27),
        ("sft", "sampled", "raw", 0.71),
        ("sft", "sampled", "surface_normalised", 0.62),
        ("capo", "sampled", "raw", 0.87),
        ("capo", "sampled", "surface_normalised", 0.78),
    ]
    return [
        metric_row(m, "attribution_accuracy", v, annotator=annotator, decision=d, condition=c, size=5)
        for m, d, c, v in figures
    ]


def comparison_row(
    a: str, b: str, metric: str, difference: float | None, low: float | None, high: float | None, **keys: Any
) -> tuple:
    """Return a COMPARISONS row; keys: decision, condition, size, p."""
    known = {"decision": "sampled", "condition": None, "size": None, "p": 0.01, **keys}
    place = (known["decision"], metric, known["condition"], known["size"])
    return (a, b, *place, difference, low, high, known["p"], 100, 1)


def attribution_comparison(difference: float | None, low: float | None, high: float | None, p: float | None) -> tuple:
    """Return CAPO minus SFT for the attribution of groups of 5, as written."""
    return comparison_row("capo", "sft", "attribution_accuracy", difference, low, high, condition="raw", size=5, p=p)


def make_corpus(people: tuple[str, ...] = PEOPLE, explanation: str = "Because it says so.") -> pl.DataFrame:
    """Return four items, two of them test, annotated by everybody."""
    rows = []
    for i, item_id in enumerate(ITEMS):
        split = ("train", "validation", "test", "test")[i]
        for person in people:
            texts = (f"Context {i}", f"Statement {i}")
            rows.append((item_id, f"c{i}", *texts, person, "yes", explanation, "f.csv", i + 1, str(i), "{}", split))
    return frame(rows, frames.CORPUS)


def make_generations(people: tuple[str, ...] = PEOPLE, explanation: str = "It follows.") -> pl.DataFrame:
    """Return SFT's and CAPO's responses to the test items for everybody, and zero-shot's, one unreadable."""
    rows = []
    for item_id in ITEMS[2:]:
        for method in ("sft", "capo"):
            for person in people:
                label = "yes" if method == "sft" else "no"
                text = f"Label: {label}\nExplanation: {explanation}"
                rows.append(
                    (method, 13, person, item_id, "sampled", text, label, explanation, "ok", None, 50, 9, False)
                )
    zero = ("zero_shot", 13, None)
    rows.append((*zero, ITEMS[2], "sampled", "I cannot say", None, None, "no_label", None, 50, 96, True))
    rows.append((*zero, ITEMS[3], "sampled", "Label: no\nExplanation: No.", "no", "No.", "ok", None, 50, 9, False))
    return frame(rows, frames.GENERATIONS)


def make_config(**changes: Any) -> ExperimentConfig:
    """Return a configuration of a nominal task, changed at the top level."""
    return ExperimentConfig.model_validate(
        {
            "name": "sample",
            "task": {
                "name": "nli",
                "question": "Does the statement follow?",
                "text_a_name": "Context",
                "text_b_name": "Statement",
                "labels": {"type": "nominal", "names": ["yes", "no"]},
            },
            "corpus": {"name": "sample", "format": "table", "paths": ["f.csv"]},
            "model": {"id": "bundled:smollm2-135m-instruct"},
            **changes,
        }
    )


def make_stability() -> pl.DataFrame:
    """Return a curve of two sizes with its floor."""
    rows = [
        ("none", "none", condition, size, accuracy, accuracy - 0.1, accuracy + 0.05, 40, 4, 3, 0.5)
        for condition, size, accuracy in (
            ("human", 1, 0.7),
            ("human", 5, 0.9),
            ("shuffled", 1, 0.5),
            ("shuffled", 5, 0.52),
        )
    ]
    return frame(rows, frames.STABILITY)


def make_training_log() -> pl.DataFrame:
    """Return three steps of loss on training items and one on validation items."""
    losses = [(step, step / 3, "train", "loss", 2.0 - 0.5 * step) for step in (1, 2, 3)]
    return frame([*losses, (3, 1.0, "validation", "loss", 1.25)], frames.TRAINING_LOG)


def make_data(**changes: Any) -> ReportData:
    """Return a small report's data, changed as given."""
    data = ReportData(
        config=make_config(),
        annotations_counts={"rows_in": 9, "rows_accepted": 8, "rows_quarantined": 1, "stray_white_space": 3},
        quarantine=frame(
            [("f.csv", 9, "4", "ben", "label", "unknown_label", "label 'perhaps' is not yes or no", "{}")],
            frames.QUARANTINE,
        ),
        corpus=make_corpus(),
        agreement=frame(
            [
                ("krippendorff_alpha_nominal", None, None, 0.41, 0.3, 0.5, 4, 8),
                ("cohen_kappa", "ada", "ben", None, None, None, 4, 8),
            ],
            frames.AGREEMENT,
        ),
        stability=make_stability(),
        training_logs=[("sft", "ada", 13, make_training_log()), ("sft", "ben", 13, make_training_log())],
        pair_counts={"pairs by relation": {"same_label": 5, "different_label": 7}},
        metrics=frame([row for who in ("all", *PEOPLE) for row in attribution_rows(who)], frames.METRICS),
        comparisons=frame([attribution_comparison(0.16, 0.08, 0.24, 0.003)], frames.COMPARISONS),
        judge_metrics=None,
        generations=make_generations(),
        ratings_metrics=None,
        provenance={
            "artifacts": {"corpus": "capo:corpus/" + "a" * 64 + "?rows=8&version=1"},
            "versions": {"polars": "2.1.0"},
            "capo_version": "0.1.0",
            "command": "capo run sample.yaml",
            "created_at": "2026-01-02 03:04 UTC",
        },
    )
    return replace(data, **changes)


def empty_data() -> ReportData:
    """Return data in which nothing was measured."""
    return make_data(
        annotations_counts={},
        quarantine=frames.empty(frames.QUARANTINE),
        agreement=frames.empty(frames.AGREEMENT),
        stability=frames.empty(frames.STABILITY),
        training_logs=[],
        pair_counts={},
        metrics=frames.empty(frames.METRICS),
        comparisons=frames.empty(frames.COMPARISONS),
        generations=frames.empty(frames.GENERATIONS),
        provenance={},
    )
