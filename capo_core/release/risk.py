"""How well the people behind pseudonyms can be told by how they explain, in a table and in plain words."""

from __future__ import annotations

import polars as pl

from capo_core.report.formats import NOT_MEASURED, format_estimate, format_percent, is_measured, join_and
from capo_core.report.terms import CLASSIFIER_TITLES, NORMALISATION_TITLES, SHUFFLED

GROUP_SIZES = (1, 5, 10)
"""Numbers of explanations, known to be by one person, at which the risk is stated."""

_PART = 1_000_000


def tabulate_risk(stability: pl.DataFrame) -> list[tuple[str, ...]]:
    """Return the rows of the table: what was read, then attribution accuracy at each of `GROUP_SIZES`, with intervals.

    For texts as written and with their surface removed: each classifier on the whole text, then the strongest of all
    variants measured, chosen anew for every size as whoever wants to know a name would. Last the floor, the whole text
    with its annotators shuffled within items.

    Args:
        stability: a `STABILITY` frame.
    """
    rows = []
    for normalisation, title in NORMALISATION_TITLES.items():
        measured = _people(stability).filter(normalisation=normalisation)
        for classifier, name in CLASSIFIER_TITLES.items():
            own = measured.filter(classifier=classifier, reduction="none")
            rows.append((f"{title}, by {name}", *(_estimate(own.filter(group_size=size)) for size in GROUP_SIZES)))
        n_variants = measured.select("reduction", "classifier").unique().height
        strongest = (_estimate(_strongest(stability, normalisation, size)) for size in GROUP_SIZES)
        rows.append((f"{title}, strongest of {n_variants} variants", *strongest))
    floor = stability.filter(condition=SHUFFLED, normalisation="none", reduction="none", classifier="ngrams")
    rows.append(
        ("floor: annotators shuffled within items", *(_estimate(floor.filter(group_size=k)) for k in GROUP_SIZES))
    )
    return rows


def describe_risk(stability: pl.DataFrame, by_annotator: pl.DataFrame, n_annotators: int) -> list[str]:
    """Return the paragraphs that say what the table means for the people in the data.

    Args:
        stability: a `STABILITY` frame.
        by_annotator: a `STABILITY_BY_ANNOTATOR` frame.
        n_annotators: among whom a classifier chooses.
    """
    written, bare = (
        [_strongest(stability, normalisation, size) for size in GROUP_SIZES] for normalisation in NORMALISATION_TITLES
    )
    if not any(_is_known(row) for row in (*written, *bare)):
        return [
            f"How well the annotators can be told by their explanations was {NOT_MEASURED}. It has to be assumed that "
            "they can."
        ]
    chance = next(row["chance"].item() for row in (*written, *bare) if _is_known(row))
    paragraphs = [
        f"A classifier that had read other explanations of this data set was shown explanations known to be by one "
        f"person and asked which of {n_annotators} annotators wrote them. Guessing would be right "
        f"{_percent(chance)} of the time. Shown the texts as written, the strongest variant was right "
        f"{_list_accuracies(written)}. With case, punctuation and stray white space removed it was right "
        f"{_list_accuracies(bare)}.",
    ]
    spread = by_annotator.filter(
        pl.col("accuracy").is_not_null(), reduction="none", normalisation="none", classifier="ngrams", group_size=1
    )
    if spread.height:
        accuracies = spread["accuracy"].to_list()
        low, high = _percent(min(accuracies)), _percent(max(accuracies))
        paragraphs.append(
            f"It is not the same for all: by one explanation as written (n-grams), the annotator who is hardest to "
            f"tell was named rightly {low} of the time, the one who is easiest {high}."
        )
    return [*paragraphs, _conclude([*written, *bare])]


def _people(stability: pl.DataFrame) -> pl.DataFrame:
    """Return the figures of people's own explanations, labels of all kinds together."""
    return stability.filter(pl.col("stratum").is_null(), condition="human")


def _strongest(stability: pl.DataFrame, normalisation: str, size: int) -> pl.DataFrame:
    """Return the one row of the variant with the highest accuracy; none where nothing was measured."""
    rows = _people(stability).filter(pl.col("accuracy").is_finite(), normalisation=normalisation, group_size=size)
    return rows.sort("accuracy", "reduction", "classifier", descending=[True, False, False]).head(1)


def _is_known(row: pl.DataFrame) -> bool:
    return row.height == 1 and is_measured(row["accuracy"].item())


def _estimate(row: pl.DataFrame) -> str:
    """Return an accuracy with its interval."""
    if not _is_known(row):
        return NOT_MEASURED
    return format_estimate(*row.select("accuracy", "ci_low", "ci_high").row(0), share=True)


def _list_accuracies(rows: list[pl.DataFrame]) -> str:
    """Return `80% of the time (95% interval 77% to 82%) from one explanation, … and … from 10`."""
    parts = []
    for size, row in zip(GROUP_SIZES, rows, strict=True):
        source = "one explanation" if size == 1 else f"{size}"
        if not _is_known(row):
            parts.append(f"({NOT_MEASURED}) from {source}")
            continue
        value, low, high = row.select("accuracy", "ci_low", "ci_high").row(0)
        interval = f" (95% interval {_percent(low)} to {_percent(high)})" if is_measured(low) else " (no interval)"
        parts.append(f"{_percent(value)} of the time{interval} from {source}")
    return join_and(parts)


def _conclude(rows: list[pl.DataFrame]) -> str:
    """Return what follows from the strongest variants."""
    known = [row for row in rows if _is_known(row)]
    above = [row for row in known if is_measured(low := row["ci_low"].item()) and low > row["chance"].item()]
    if not above:
        return (
            "None of these figures lies above guessing with 95% confidence. That is no proof that nobody can be told: "
            "other methods, more text or texts from elsewhere may do better."
        )
    fewest = min(row["group_size"].item() for row in above)
    start = "a single explanation" if fewest == 1 else f"{fewest} explanations"
    return (
        f"**So the people in this data set are told apart, from {start} on.** Whoever has texts that a person wrote "
        "for this task or one like it can probably find that person's pseudonym, and with it every label and "
        f"explanation of theirs. How well that works with other kinds of text (mail, publications) was {NOT_MEASURED}."
    )


def _percent(share: float) -> str:
    """Return a share in per cent, never rounded to 0% or 100%."""
    return format_percent(round(share * _PART), _PART)
