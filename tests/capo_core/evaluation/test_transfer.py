"""Adapters on another corpus: what can be read, and whether the imitated person still shows."""

from __future__ import annotations

import polars as pl
import pytest
from evaluation_material import (
    HABITS,
    QUICK,
    corpus_frame,
    corpus_row,
    explain,
    find,
    generation,
    generations_frame,
    persona_corpus,
)

from capo_core.errors import CorpusError
from capo_core.evaluation.transfer import CONDITION, FLOOR_CONDITION, measure_transfer
from schemas.frames import METRICS

PEOPLE = tuple(HABITS)
ITEMS = [f"t{n:02d}" for n in range(10)]


@pytest.fixture(scope="module")
def source() -> pl.DataFrame:
    return persona_corpus()


@pytest.fixture(scope="module")
def target() -> pl.DataFrame:
    # Other people and other labels; only the items count.
    return corpus_frame([corpus_row(item, "zoe", "4", "because", "test") for item in ITEMS])


def _generations(writers: dict[str, str], method: str, seed: int = 1) -> list[dict]:
    """Return what the adapter of each person wrote if it writes like `writers[person]`."""
    return [
        generation(method, person, item, explanation=explain(writer, n + 3), seed=seed)
        for person, writer in writers.items()
        for n, item in enumerate(ITEMS)
    ]


@pytest.fixture(scope="module")
def metrics(source: pl.DataFrame, target: pl.DataFrame) -> pl.DataFrame:
    faithful = _generations({name: name for name in PEOPLE}, "capo")
    # All four adapters write like ana; ben's could be read on no item, cem's on half of them.
    alike = [
        row | {"parse_status": "no_label", "label": None, "explanation": None}
        if row["annotator_id"] == "ben" or (row["annotator_id"] == "cem" and row["item_id"] > "t04")
        else row
        for row in _generations(dict.fromkeys(PEOPLE, "ana"), "sft")
    ]
    return measure_transfer(source, target, generations_frame(faithful + alike), QUICK)


def _value(metrics: pl.DataFrame, method: str, who: str, condition: str, size: int) -> float | None:
    wanted = {"method": method, "annotator_id": who, "condition": condition, "group_size": size}
    return find(metrics, **wanted, metric="attribution_accuracy", classifier="ngrams", decision="sampled")["value"]


@pytest.mark.parametrize("size", [1, 5])
def test_habits_that_survive_the_change_of_corpus_are_attributed(metrics: pl.DataFrame, size: int) -> None:
    assert dict(metrics.schema) == METRICS
    for who in ("all", *PEOPLE):
        assert _value(metrics, "capo", who, CONDITION, size) == 1.0
        assert _value(metrics, "capo", who, FLOOR_CONDITION, size) == 0.0


def test_adapters_that_all_write_alike_do_not_rise_above_the_floor(metrics: pl.DataFrame) -> None:
    # All is attributed to ana: right for hers, and as often so for the others' texts.
    assert [_value(metrics, "sft", who, CONDITION, 1) for who in PEOPLE] == [1.0, None, 0.0, 0.0]
    assert [_value(metrics, "sft", who, FLOOR_CONDITION, 1) for who in PEOPLE] == [1.0, 0.0, 0.0, 0.0]
    # The means are over who was measured: 1/3 of ana, cem and dee; 1/4 of all four.
    assert _value(metrics, "sft", "all", CONDITION, 1) == pytest.approx(1 / 3)
    assert _value(metrics, "sft", "all", FLOOR_CONDITION, 1) == pytest.approx(1 / 4)


def test_what_could_not_be_read_is_counted(metrics: pl.DataFrame) -> None:
    def rate(who: str) -> dict:
        return find(metrics, method="sft", annotator_id=who, metric="parse_rate")

    assert [rate(who)["value"] for who in PEOPLE] == [1.0, 0.0, 0.5, 1.0]
    # (1 + 0 + 1/2 + 1) / 4, with an interval over the ten items
    assert rate("all")["value"] == pytest.approx(0.625)
    assert (rate("all")["n"], rate("all")["ci_low"] <= 0.625 <= rate("all")["ci_high"]) == (10, True)
    assert find(metrics, method="capo", annotator_id="all", metric="parse_rate")["value"] == 1.0


def test_seeds_are_pooled_and_row_order_does_not_matter(source: pl.DataFrame, target: pl.DataFrame) -> None:
    own, swapped = {name: name for name in PEOPLE}, dict(zip(PEOPLE, PEOPLE[1:] + PEOPLE[:1], strict=True))
    rows = generations_frame(_generations(own, "capo", seed=1) + _generations(swapped, "capo", seed=2))
    found = measure_transfer(source, target, rows, QUICK)
    # Right with the first seed, wrong with the second.
    assert _value(found, "capo", "all", CONDITION, 5) == 0.5
    assert find(found, metric="parse_rate", annotator_id="all")["n_seeds"] == 2
    shuffled = measure_transfer(
        source.sample(fraction=1, shuffle=True, seed=1), target, rows.sample(fraction=1, shuffle=True, seed=2), QUICK
    )
    assert found.equals(shuffled)


def test_test_text_of_the_source_is_not_learnt_from(source: pl.DataFrame, target: pl.DataFrame) -> None:
    rows = generations_frame(_generations({name: name for name in PEOPLE}, "capo"))
    other = source.with_columns(
        explanation=pl.when(pl.col("split") == "test").then(pl.lit("rubbish")).otherwise("explanation")
    )
    assert measure_transfer(source, target, rows, QUICK).equals(measure_transfer(other, target, rows, QUICK))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no generations whose transfer"),
        ([generation("sft", "ana", "elsewhere")], "target corpus lacks, e.g. 'elsewhere'"),
        ([generation("sft", "zoe", ITEMS[0])], r"imitate \['zoe'\], of whom the source corpus knows nothing"),
    ],
)
def test_generations_of_neither_corpus_are_refused(
    source: pl.DataFrame, target: pl.DataFrame, rows: list[dict], says: str
) -> None:
    with pytest.raises(CorpusError, match=says):
        measure_transfer(source, target, generations_frame(rows), QUICK)
