"""What the style consists of: features by how much they tell of the annotator, reliability, and a card per person."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from capo_core.report.charts import Bar, Dot, draw_bars, draw_dots
from capo_core.report.data import ReportData, choose_size, is_finite, matching
from capo_core.report.figures import SHARE_DOMAIN, Figure, LegendEntry, Panel
from capo_core.report.formats import (
    format_difference,
    format_estimate,
    format_interval,
    format_p,
    format_value,
    is_measured,
    plural,
    write_p,
)
from capo_core.report.key_figures import CLASSIFIER
from capo_core.report.tables import Cell, Table, build_table, count_cell, text_cell, value_cell
from capo_core.report.terms import feature_title

N_BARS = 14
"""Features drawn; all of them are in the table."""

N_TRAITS = 6
"""Features named on a person's card: those that differ most among the tested ones that do."""

N_WORDS = 12
N_EXAMPLES = 4
ALPHA = 0.05
_KINDS = {"split_half": "random halves", "batch_to_batch": "first half against second"}


@dataclass(frozen=True)
class Trait:
    """One feature in which a person differs: what, by how much with interval and test, and both means."""

    name: str
    difference: str
    test: str
    means: str


@dataclass(frozen=True)
class Term:
    """One word or phrase a person uses more than the others, with the counts."""

    text: str
    counts: str


@dataclass(frozen=True)
class StyleCard:
    """One annotator's style.

    Attributes:
        annotator_id: whose.
        facts: how well he is told apart and how reliably his style shows again, each with interval and control.
        traits: features that differ from the others'; none where no test shows one.
        words: terms that carry the style.
        examples: (label, explanation) of the held-out explanations surest to be attributed to him.
    """

    annotator_id: str
    facts: tuple[str, ...]
    traits: tuple[Trait, ...]
    words: tuple[Term, ...]
    examples: tuple[tuple[str, str], ...]


def draw_features(data: ReportData) -> Figure:
    """Return the features that tell most of the annotator: share of variance, and reliability beside it."""
    shown = data.style.features.filter(is_finite("variance_annotator"))
    shown = shown.sort(["variance_annotator", "feature"], descending=[True, False]).head(N_BARS)
    if shown.is_empty():
        return Figure("Style features by what they tell of the annotator", ())
    rows = list(shown.iter_rows(named=True))
    bars = [
        Bar(
            _short_title(row["feature"]),
            row["variance_annotator"],
            "var(--accent)",
            f"{row['definition']} Annotator {format_value(row['variance_annotator'], share=True)} of the variance, "
            f"{format_p(row['p_holm']) or 'not tested'}, Holm",
            is_hollow=not _is_significant(row["p_holm"]),
        )
        for row in rows
    ]
    reliability = [
        Dot(
            _short_title(row["feature"]),
            row["reliability"] if is_measured(row["reliability"]) else None,
            None,
            None,
            "var(--ink-2)",
            f"{feature_title(row['feature'])}: reliability {format_value(row['reliability'], share=True)}",
        )
        for row in rows
    ]
    described = "Figures in the table of all features."
    panels = (
        Panel(
            "Variance due to the annotator",
            draw_bars(bars, description=f"Share of each feature's variance due to the annotator. {described}"),
        ),
        Panel(
            "Reliability of the annotators' means",
            draw_dots(reliability, description=f"Reliability of each feature. {described}", domain=SHARE_DOMAIN),
        ),
    )
    legend = (
        LegendEntry("annotators differ (permutation test, Holm)", "dot dot-filled"),
        LegendEntry("no difference shown", "dot dot-hollow"),
    )
    return Figure(f"The {len(rows)} style features that tell most of the annotator", panels, legend)


def _short_title(feature: str) -> str:
    """Return a feature's name as short as a drawing needs it."""
    return feature_title(feature).removesuffix(" rate")


def _is_significant(p: float | None) -> bool:
    return p is not None and is_measured(p) and p < ALPHA


def tabulate_features(data: ReportData) -> Table:
    """Return every feature: variance shares, effect, tests, reliability, unit and definition."""
    features = data.style.features
    rows = [
        [
            Cell(feature_title(row["feature"]), (row["unit"],)),
            *(_share_cell(row[f"variance_{part}"]) for part in ("annotator", "item", "label", "residual")),
            _share_cell(row["partial_omega_squared"]),
            Cell(write_p(row["p_value"]) or "not tested", numeric=True),
            Cell(write_p(row["p_holm"]) or "not tested", numeric=True),
            _share_cell(row["reliability"]),
            text_cell(row["definition"]),
        ]
        for row in features.sort(
            ["variance_annotator", "feature"], descending=[True, False], nulls_last=True
        ).iter_rows(named=True)
    ]
    heads = ["Feature", "Annotator", "Item", "Label", "Rest", "Partial ω²", "p", "p, Holm", "Reliability", "Definition"]
    notes = (
        "Annotator, item, label, rest: shares of the feature's variance. Partial ω²: of the annotator, given item and "
        "label. p: within-item permutation. Reliability: of the annotators' means, split-half stepped up.",
    )
    return build_table("Every feature of style", heads, rows, notes=notes)


def caution_permutations(data: ReportData) -> str:
    """Return a warning where so few permutations were drawn that no feature could pass the correction; else empty."""
    features = data.style.features.filter(is_finite("p_value"))
    n_permutations = features["n_permutations"].max()
    if not isinstance(n_permutations, int) or features.height / (n_permutations + 1) < ALPHA:
        return ""
    return (
        f"With {n_permutations:,} permutations the least p is 1/{n_permutations + 1:,}: after correction for "
        f"{plural(features.height, 'feature')} no difference can be shown. More permutations are needed."
    )


def _share_cell(value: float | None) -> Cell:
    if not is_measured(value):
        return Cell("undefined", style="absent")
    return Cell(format_value(value, share=True), numeric=True)


def tabulate_reliability(data: ReportData) -> Table:
    """Return per annotator how far the style profile shows again in other items, beside the shuffled control."""
    reliability = data.style.reliability
    rows = []
    for person in sorted(reliability["annotator_id"].unique().to_list()):
        cells = [text_cell(person)]
        own = matching(reliability, annotator_id=person)
        for kind in _KINDS:
            found = matching(own, kind=kind)
            row = found.row(0, named=True) if found.height == 1 else None
            if row is None or not is_measured(row["value"]):
                cells.append(Cell("not measured", style="absent"))
                continue
            floor = f"shuffled {format_value(row['shuffled'], share=True)}"
            cells.append(value_cell(row["value"], row["ci_low"], row["ci_high"], share=True, notes=[floor]))
        n_items = own["n_items"].max()
        cells.append(count_cell(n_items if isinstance(n_items, int) else None))
        rows.append(cells)
    heads = ["Annotator", *(title[0].upper() + title[1:] for title in _KINDS.values()), "Items"]
    notes = (
        "Correlation, over features, of a person's profile in one half of his items with that in the other half; "
        "“shuffled” is the same with annotators shuffled within items. The order of the source is taken for the order "
        "of annotation.",
    )
    return build_table("Reliability of each annotator's style", heads, rows, notes=notes)


def build_cards(data: ReportData) -> list[StyleCard]:
    """Return a card per annotator: what is stable, how strongly, the words that carry it, and examples."""
    style = data.style
    people = {name for frame in (style.annotators, style.reliability, style.words, style.examples)
              for name in frame["annotator_id"].to_list()}  # fmt: skip
    return [
        StyleCard(
            person,
            tuple(_list_facts(data, person)),
            tuple(_list_traits(matching(style.annotators, annotator_id=person))),
            tuple(_list_words(matching(style.words, annotator_id=person))),
            tuple(_list_examples(matching(style.examples, annotator_id=person))),
        )
        for person in sorted(people)
    ]


def _list_facts(data: ReportData, person: str) -> list[str]:
    """Return how well a person is told apart, as written and without the surface, and how reliable his style is."""
    facts = []
    own = matching(data.stability_annotators, annotator_id=person, reduction="none", classifier=CLASSIFIER)
    size = choose_size(own.filter(is_finite("accuracy"))["group_size"].to_list())
    parts = []
    for normalisation, title in (("none", "as written"), ("surface", "surface removed")):
        found = matching(own, normalisation=normalisation, group_size=size)
        if found.height == 1 and is_measured(found["accuracy"][0]):
            row = found.row(0, named=True)
            parts.append(f"{format_estimate(row['accuracy'], row['ci_low'], row['ci_high'], share=True)} {title}")
    if parts:
        chance = format_value(1 / len(data.annotators), share=True)
        facts.append(f"Groups of {size} attributed to this person: {', '.join(parts)} (chance {chance})")
    for kind, title in _KINDS.items():
        found = matching(data.style.reliability, annotator_id=person, kind=kind)
        if found.height == 1 and is_measured(found["value"][0]):
            row = found.row(0, named=True)
            value = format_estimate(row["value"], row["ci_low"], row["ci_high"], share=True)
            facts.append(f"Style shows again, {title}: {value} (shuffled {format_value(row['shuffled'], share=True)})")
    return facts


def _list_traits(rows: pl.DataFrame) -> list[Trait]:
    """Return the features in which a test shows a person to differ, greatest difference first."""
    shown = rows.filter(is_finite("difference") & is_finite("p_holm") & (pl.col("p_holm") < ALPHA))
    shown = shown.sort([pl.col("difference").abs(), "feature"], descending=[True, False]).head(N_TRAITS)
    return [
        Trait(
            feature_title(row["feature"]),
            f"{format_difference(row['difference'])} SD {format_interval(row['ci_low'], row['ci_high'])}",
            f"{format_p(row['p_holm'])}, Holm",
            f"{format_value(row['mean'])}, others {format_value(row['others_mean'])} ({row['unit']})",
        )
        for row in shown.iter_rows(named=True)
    ]


def _list_words(rows: pl.DataFrame) -> list[Term]:
    """Return the words that carry a person's style most."""
    ordered = rows.sort(["z", "term"], descending=[True, False]).head(N_WORDS)
    return [Term(row["term"], f"{row['n_own']:,} : {row['n_others']:,}") for row in ordered.iter_rows(named=True)]


def _list_examples(rows: pl.DataFrame) -> list[tuple[str, str]]:
    """Return the labels and texts of the surest examples, equal ones once."""
    ordered = rows.sort(["log_probability", "item_id"], descending=[True, False])
    texts = dict.fromkeys((row["label"], row["explanation"].strip()) for row in ordered.iter_rows(named=True))
    return list(texts)[:N_EXAMPLES]
