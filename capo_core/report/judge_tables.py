"""The LLM judge: what it is worth on people's own text first, then what it says of the methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from capo_core.report.comparison_tables import tabulate_comparisons
from capo_core.report.data import ALL, Estimate, ReportData, matching
from capo_core.report.figures import Figure
from capo_core.report.formats import format_value
from capo_core.report.opinions import PROTOCOLS, Worth, find_smallest, list_worths, weigh_judge
from capo_core.report.result_figures import draw_accuracy
from capo_core.report.result_tables import tabulate_metrics
from capo_core.report.tables import Cell, Table, build_table, count_cell, text_cell, value_cell
from capo_core.report.terms import OTHER_ANNOTATOR, SHUFFLED, condition_title, method_title, quantity_title
from schemas.frames import COMPARISONS, empty

_SILENT = "By judges that do not tell people apart, not informative"


@dataclass(frozen=True)
class JudgeSection:
    """What the page shows of judges.

    Attributes:
        informative: whether any tells the real annotators apart; None where that is not known.
        sentence: says so in words.
        calibration: ceiling and floor on people's own text beside chance, per judge, protocol and condition.
        figures: accuracy by method, one per judge.
        comparisons: the methods against each other by judges that tell people apart, CAPO and SFT first.
        silent: the same by judges that do not.
        pairs: wins, ties and losses of the pairwise questions.
        agreement: of judges with each other and with the classifier.
        metrics: every figure; None where no judge was asked.
    """

    informative: bool | None
    sentence: str
    calibration: Table
    figures: tuple[Figure, ...]
    comparisons: tuple[Table, ...]
    silent: tuple[Table, ...]
    pairs: Table
    agreement: Table
    metrics: Table | None


def collect_judge(data: ReportData) -> JudgeSection:
    """Return what the page shows of judges; what an uninformative one says of models is marked throughout."""
    informative, sentence = weigh_judge(data)
    worths = list_worths(data)
    telling, silent = split_comparisons(data.judge_comparisons, worths)
    metrics = data.judge_metrics
    worth = "" if informative else "; not informative" if informative is False else "; of unknown worth"
    caption = f"Every figure of the judge, mean over annotators, by method{worth}"
    return JudgeSection(
        informative,
        sentence,
        tabulate_calibration(data),
        () if metrics is None else tuple(draw_judges(data, metrics, worths)),
        _name_tables("By the judge", tabulate_comparisons(telling, data.alpha)),
        _name_tables(_SILENT, tabulate_comparisons(silent, data.alpha)),
        tabulate_pairs_judged(data),
        tabulate_judge_agreement(data),
        None if metrics is None or metrics.is_empty() else tabulate_metrics(metrics, ALL, caption),
    )


def _name_tables(before: str, tables: Sequence[Table]) -> tuple[Table, ...]:
    """Return the tables with captions that say whose figures they hold."""
    return tuple(replace(table, caption=f"{before}: {table.caption}") for table in tables)


def split_comparisons(comparisons: pl.DataFrame | None, worths: Sequence[Worth]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the comparisons by judges that tell people apart in that protocol and condition, and all others."""
    if comparisons is None:
        return empty(COMPARISONS), empty(COMPARISONS)
    keys = {(worth.judge, worth.protocol.compared, worth.condition) for worth in worths if worth.informative}
    rows = comparisons.select("classifier", "metric", "condition").rows()
    tells = pl.Series([key in keys for key in rows], dtype=pl.Boolean)
    return comparisons.filter(tells), comparisons.filter(~tells)


def draw_judges(data: ReportData, metrics: pl.DataFrame, worths: Sequence[Worth]) -> list[Figure]:
    """Return one figure per judge that attributed groups: accuracy by method, its worth in the caption."""
    figures = []
    for judge in dict.fromkeys(worth.judge for worth in worths):
        own = [worth.informative for worth in worths if worth.judge == judge and worth.protocol is PROTOCOLS[0]]
        if not own:
            continue
        name = f"{judge}: groups" if judge else "Groups"
        caption = f"{name} attributed to the person imitated, with {data.confidence_percent} intervals"
        caption += "" if any(own) else "; not informative" if False in own else "; of unknown worth"
        rows = matching(metrics, classifier=judge)
        figures.append(draw_accuracy(rows, PROTOCOLS[0].ceiling, caption, len(data.annotators)))
    return figures


def tabulate_calibration(data: ReportData) -> Table:
    """Return each judge's figures on people's own text: ceiling, floor, chance, consistency, and what they say."""
    metrics = data.judge_metrics
    rows = [] if metrics is None else [_calibration_row(metrics, worth) for worth in list_worths(data)]
    notes = (
        "Ceiling: text the people wrote themselves. Floor: for attribution, authors shuffled within items; "
        "for same author, how often another annotator's group is taken for the person's own. A judge whose interval on "
        "people's own text does not lie above chance is not informative: what it says of methods says nothing. Same "
        "answer: pairs of orders of the candidates that name the same one. Position: how far one place in the list is "
        "preferred.",
    )
    heads = ["Asked", "Ceiling", "Floor", "Chance", "Same answer", "Ties", "Position", "Readable", "Groups", "Reading"]
    return build_table("Judges on people's own text", heads, rows, notes=notes)


def _calibration_row(metrics: pl.DataFrame, worth: Worth) -> list[Cell]:
    """Return one judge's figures in one protocol and condition."""
    prefix = worth.protocol.prefix
    own = matching(metrics, method="human", annotator_id=ALL, classifier=worth.judge)
    here = matching(own, condition=worth.condition)
    behind = "" if worth.condition == "raw" else f":{worth.condition}"
    floors = own.filter(pl.col("condition").is_in([f"{name}{behind}" for name in (SHUFFLED, OTHER_ANNOTATOR)]))
    floor = find_smallest(matching(floors, metric=worth.protocol.compared))
    rates = [find_smallest(matching(here, metric=f"{prefix}_{name}"))
             for name in ("self_consistency", "tie_rate", "position_bias", "parse_rate")]  # fmt: skip
    notes = [condition_title(worth.condition), *([worth.judge] if worth.judge else [])]
    return [
        Cell(worth.protocol.title, tuple(notes)),
        _estimate_cell(worth.ceiling),
        Cell("–", style="absent") if prefix == "judge_pairwise" else _estimate_cell(floor),
        Cell(format_value(worth.chance, share=True), numeric=True),
        *(_plain_cell(rate) for rate in rates),
        count_cell(worth.ceiling.n if worth.ceiling else None),
        _say_informative(worth.informative),
    ]


def _estimate_cell(found: Estimate | None) -> Cell:
    if found is None:
        return value_cell(None, None, None, share=True)
    return value_cell(found.value, found.low, found.high, share=True)


def _plain_cell(found: Estimate | None) -> Cell:
    if found is None:
        return value_cell(None, None, None, share=True)
    return Cell(format_value(found.value, share=True), numeric=True)


def _say_informative(informative: bool | None) -> Cell:
    """Return what a flag says in words."""
    if informative is None:
        return Cell("not known", style="quiet")
    return Cell("tells people apart", style="strong") if informative else Cell("not informative", style="quiet")


def tabulate_pairs_judged(data: ReportData) -> Table:
    """Return wins, ties and losses of every pair of methods over all annotators, both orders taken together."""
    caption = "Which of two groups is closer to the person"
    if data.judge_pairs is None:
        return build_table(caption, ["Pair"], [])
    rows = [
        [
            Cell(
                f"{_side(row['method_a'])} against {_side(row['method_b'])}",
                (condition_title(row["condition"]), row["judge"]),
            ),
            *(count_cell(row[f"n_{name}"]) for name in ("wins_a", "ties", "wins_b", "unmeasured")),
            _say_informative(row["informative"]),
        ]
        for row in matching(data.judge_pairs, annotator_id=ALL)
        .sort("judge", "condition", "method_a", "method_b")
        .iter_rows(named=True)
    ]
    notes = ("A tie: the two orders of the groups name different ones. Unmeasured: an order without readable verdict.",)
    heads = ["Pair", "First", "Ties", "Second", "Unmeasured", "The judge"]
    return build_table(caption, heads, rows, notes=notes)


def _side(method: str) -> str:
    return "another annotator" if method == "human_other" else method_title(method)


def tabulate_judge_agreement(data: ReportData) -> Table:
    """Return how far judges agree with each other and with the stylometric classifier."""
    caption = "Agreement of judges"
    if data.judge_agreement is None:
        return build_table(caption, ["Who"], [])
    sources = {"human": "people's own text", "models": "models' text", "pairwise": "pairs of methods"}
    protocols = {one.title.lower().replace(" ", "_"): one.title for one in PROTOCOLS}
    rows = [
        [
            Cell("all judges" if row["judge_a"] is None else f"{row['judge_a']} and {row['judge_b']}"),
            Cell(
                protocols.get(row["protocol"]) or str(row["protocol"]),
                (sources.get(row["source"]) or str(row["source"]), condition_title(row["condition"])),
            ),
            text_cell(quantity_title(row["metric"])),
            value_cell(row["value"], row["ci_low"], row["ci_high"], share=True),
            count_cell(row["n_groups"]),
        ]
        for row in data.judge_agreement.sort(data.judge_agreement.columns).iter_rows(named=True)
    ]
    notes = ("“stylometry” is the classifier on n-grams, trained on human text, on the same groups.",)
    return build_table(caption, ["Who", "Asked", "Figure", "Value", "Groups"], rows, notes=notes)
