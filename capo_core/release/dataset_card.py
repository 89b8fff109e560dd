"""The card of a published data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
from huggingface_hub import DatasetCardData

from capo_core.corpora import count_surface_habits
from capo_core.quality import count_explanations_in_train
from capo_core.release.card import licence_fields, render_card
from capo_core.release.dataset import PREFERENCES_TABLE, WITHHELD, list_files
from capo_core.release.k_anonymity import PrivacyCheck, describe_k_anonymity
from capo_core.release.risk import GROUP_SIZES, describe_risk, tabulate_risk
from capo_core.report.formats import format_count, format_percent, plural
from capo_core.splits import SPLITS
from schemas.config import ExperimentConfig

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "n>1M"
_ROW_COUNTS = ("rows_in", "rows_accepted", "rows_quarantined")
_HABITS = {
    "explanations_with_stray_white_space": "white space around it",
    "explanations_opening_with_white_space": "opens with white space",
    "explanations_ending_with_full_stop": "ends with a full stop",
}


@dataclass(frozen=True)
class DatasetFacts:
    """All that a card says of a data set.

    Attributes:
        config: of the experiment; its section `release` is stated word for word.
        corpus: `CORPUS`, annotators under pseudonyms.
        tables: what is published, of `dataset.build_tables`.
        counts: of ingest, over the files as they were read.
        drops: `PAIR_DROPS` of every annotator.
        stability: `STABILITY`.
        stability_by_annotator: `STABILITY_BY_ANNOTATOR`.
        traces: of `traces.count_traces`.
        privacy: what published metadata do to the annotators.
        forced: why it was exported although something stood against it; None where nothing did.
    """

    config: ExperimentConfig
    corpus: pl.DataFrame
    tables: Mapping[str, pl.DataFrame]
    counts: Mapping[str, int]
    drops: pl.DataFrame
    stability: pl.DataFrame
    stability_by_annotator: pl.DataFrame
    traces: Mapping[str, int]
    privacy: PrivacyCheck
    forced: str | None


def render_dataset_card(facts: DatasetFacts) -> str:
    """Return the card of a data set as Markdown with the header that the hub and `datasets` read.

    Raises:
        ReleaseError: if the licence is no SPDX expression.
    """
    config, corpus, tables = facts.config, facts.corpus, facts.tables
    annotators = sorted(corpus["annotator_id"].unique())
    context = {
        "name": config.corpus.name,
        "task": config.task,
        "release": config.release,
        "forced": facts.forced,
        "n_annotators": len(annotators),
        "n_items": format_count(corpus["item_id"].n_unique()),
        "n_annotations": format_count(corpus.height),
        "n_items_read": format_count(facts.counts.get("items")),
        "is_sample": corpus["item_id"].n_unique() != facts.counts.get("items"),
        "pool": _tabulate_pool(facts, annotators),
        "sizes": _tabulate_sizes(tables),
        "pairs": config.pairs,
        "tag": config.adapter.tag if config.adapter.layout == "shared" else None,
        "drops": dict(facts.drops["reason"].value_counts(sort=True).iter_rows()),
        "rows_read": {name.removeprefix("rows_"): format_count(facts.counts.get(name)) for name in _ROW_COUNTS},
        "quarantined": _pick_counts(facts.counts, "quarantined_"),
        "n_empty": format_count(facts.counts.get("quarantined_empty_explanation", 0)),
        "n_several": plural(_count_several_labels(corpus), "time"),
        "n_repeated": format_count(count_explanations_in_train(corpus)),
        "n_test": format_count(corpus.filter(split="test").height),
        "counts": _list_quirks(facts.counts),
        "habits": _tabulate_habits(corpus, annotators),
        "habit_titles": list(_HABITS.values()),
        "traces": {what: format_count(n) for what, n in facts.traces.items()},
        "withheld": WITHHELD,
        "published": config.release.annotator_columns,
        "k_anonymity": [[str(cell) for cell in row] for row in tabulate_k(facts.privacy)],
        "k_paragraph": describe_k_anonymity(facts.privacy),
        "risk": tabulate_risk(facts.stability),
        "risk_header": ["Text", *(f"k = {size}" for size in GROUP_SIZES)],
        "risk_paragraphs": describe_risk(facts.stability, facts.stability_by_annotator, len(annotators)),
    }
    return render_card("dataset_card.md.j2", _write_header(facts), context)


def _write_header(facts: DatasetFacts) -> DatasetCardData:
    """Return the header: what the hub lists and which file is which split of which table."""
    n_rows = sum(table.height for table in facts.tables.values())
    files = list_files(facts.tables)
    return DatasetCardData(
        pretty_name=f"{facts.config.corpus.name}: labels and explanations by annotator",
        task_categories=["text-classification", "text-generation"],
        size_categories=next((name for bound, name in _SIZES if n_rows < bound), _LARGEST),
        tags=["capo", "human-label-variation", "explanations", "preferences", "dpo", "trl"],
        configs=[
            {
                "config_name": name,
                **({"default": True} if name == PREFERENCES_TABLE else {}),
                "data_files": [{"split": split, "path": path} for split, path in files[name].items()],
            }
            for name in facts.tables
        ],
        **licence_fields(facts.config.release),
    )


def tabulate_k(privacy: PrivacyCheck) -> list[tuple[str, int, int, int]]:
    """Return columns, combinations that occur, k and people below the limit, of each combination that is published."""
    return privacy.released.select("columns", "n_combinations", "k", "n_below").rows()


def _tabulate_pool(facts: DatasetFacts, annotators: list[str]) -> list[list[str]]:
    """Return per annotator the annotations, in all and by split, and the pairs in which theirs is preferred."""
    rows = []
    for annotator in annotators:
        own = facts.corpus.filter(annotator_id=annotator)
        by_split = [own.filter(split=split).height for split in SPLITS]
        n_pairs = facts.tables[PREFERENCES_TABLE].filter(annotator_id=annotator).height
        rows.append([annotator, *(format_count(n) for n in (own.height, *by_split, n_pairs))])
    return rows


def _tabulate_sizes(tables: Mapping[str, pl.DataFrame]) -> list[list[str]]:
    """Return the rows of each table by split; a split that a table has not is a dash."""
    files = list_files(tables)
    return [
        [name, *(format_count(table.filter(split=split).height) if split in files[name] else "–" for split in SPLITS)]
        for name, table in tables.items()
    ]


def _pick_counts(counts: Mapping[str, int], prefix: str) -> dict[str, str]:
    """Return the counts whose name begins so, without it, the most frequent first."""
    found = {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
    return {name: format_count(n) for name, n in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))}


def _list_quirks(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the quirks that ingest counted in the files, but for those of single annotators, by name in words."""
    return {
        name.replace("_", " "): format_count(n)
        for name, n in counts.items()
        if n and "." not in name and name not in _ROW_COUNTS and not name.startswith("quarantined_")
    }


def _count_several_labels(corpus: pl.DataFrame) -> int:
    """Return how many times an annotator gave an item more than one label."""
    return corpus.group_by("item_id", "annotator_id").len().filter(pl.col("len") > 1).height


def _tabulate_habits(corpus: pl.DataFrame, annotators: list[str]) -> list[list[str]]:
    """Return per annotator the share of explanations with each habit of form."""
    counts = count_surface_habits(corpus)
    n_own = dict(corpus.group_by("annotator_id").len().iter_rows())
    return [
        [annotator, *(format_percent(counts[f"{habit}.{annotator}"], n_own[annotator]) for habit in _HABITS)]
        for annotator in annotators
    ]
