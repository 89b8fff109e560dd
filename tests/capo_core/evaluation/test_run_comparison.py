"""Two runs are compared on what both have, paired by item, annotator and seed."""

from __future__ import annotations

import polars as pl
import pytest
from evaluation_material import HABITS, ONE_LABEL, QUICK, explain, find, generation, generations_frame, persona_corpus

from capo_core.errors import CorpusError
from capo_core.evaluation.run_comparison import RunComparison, compare_runs

CORPUS = persona_corpus()
ITEMS = tuple(f"i{n:03d}" for n in range(24, 32))
OWN = {(row["item_id"], row["annotator_id"]): row["label"] for row in CORPUS.iter_rows(named=True)}


def answer(items: tuple[str, ...] = ITEMS, *, right: bool = True, seed: int = 1, method: str = "capo") -> pl.DataFrame:
    """Return a run in which every label is the person's, or none is; everybody is imitated in his own manner."""
    rows = []
    for item in items:
        for name in HABITS:
            own = OWN[item, name]
            other = next(label for label in ONE_LABEL.labels.names if label != own)
            text = explain(name, int(item[1:]) + 1)
            rows.append(generation(method, name, item, own if right else other, text, seed=seed))
    return generations_frame(rows)


def compare(first: pl.DataFrame, second: pl.DataFrame) -> RunComparison:
    return compare_runs(CORPUS, first, second, ONE_LABEL, QUICK)


def test_equal_runs_differ_in_nothing() -> None:
    found = compare(answer(), answer())
    measured = found.comparisons.drop_nulls("difference")
    assert measured.height > 10
    assert measured["difference"].abs().max() == 0
    assert measured["p_value"].drop_nulls().min() == 1
    assert (found.n_items, found.n_left_out) == (8, 0)


def test_a_run_that_decides_as_the_person_does_is_shown_to() -> None:
    # Every label right against none right: 1 - 0, on all 8 items; of 2^8 sign patterns 2 are as extreme: p = 2 / 256,
    # and the bootstrap's 2 (1 + 0) / (1 + 100) = .0198 is the greater.
    row = find(compare(answer(), answer(right=False)).comparisons, metric="label_agreement", method_a="capo")
    assert (row["method_b"], row["difference"], row["n"]) == ("capo", 1.0, 8)
    assert row["p_value"] == pytest.approx(2 / 101)
    assert (row["ci_low"], row["ci_high"]) == (1.0, 1.0)


def test_only_items_of_both_runs_count() -> None:
    found = compare(answer(ITEMS[:6]), answer(ITEMS[2:], right=False))
    # 6 and 6 of 8 items, 4 in common, 4 in one run only.
    assert (found.n_items, found.n_left_out) == (4, 4)
    assert find(found.comparisons, metric="label_agreement", method_a="capo")["n"] == 4


def test_figures_of_both_runs_stand_beside_the_same_ceiling() -> None:
    found = compare(answer(), answer(right=False))
    wanted = {"method": "capo", "annotator_id": "all", "metric": "label_agreement"}
    assert [find(metrics, **wanted)["value"] for metrics in (found.first, found.second)] == [1.0, 0.0]
    ceiling = {"method": "human", "annotator_id": "all", "metric": "attribution_accuracy", "condition": "raw"}
    values = [find(metrics, **ceiling, group_size=3)["value"] for metrics in (found.first, found.second)]
    assert values[0] == values[1]


def test_other_seeds_are_not_compared() -> None:
    found = compare(answer(seed=1), answer(seed=2))
    assert found.comparisons["difference"].null_count() == found.comparisons.height > 0


def test_order_of_rows_does_not_matter() -> None:
    second = answer(right=False)
    turned = compare(answer().sample(fraction=1, shuffle=True, seed=1), second.sample(fraction=1, shuffle=True, seed=2))
    assert turned.comparisons.equals(compare(answer(), second).comparisons)


def test_runs_without_a_common_item_or_method_are_refused() -> None:
    with pytest.raises(CorpusError, match="no item in common"):
        compare(answer(ITEMS[:4]), answer(ITEMS[4:]))
    with pytest.raises(CorpusError, match=r"methods \['capo'\], the second \['sft'\]"):
        compare(answer(), answer(method="sft"))
