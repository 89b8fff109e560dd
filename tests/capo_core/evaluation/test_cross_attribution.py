"""The matrix of whose text each imitation is taken for."""

from __future__ import annotations

import polars as pl
import pytest
from evaluation_material import HABITS, embed_by_letters, explain, find, generation, generations_frame, persona_corpus

from capo_core.evaluation.cross_attribution import cross_attribution
from capo_core.evaluation.imitation import attribute_writings, score_imitation
from capo_core.evaluation.scores import Resampling
from capo_core.evaluation.tables import metric_rows, tabulate_metrics
from capo_core.evaluation.targets import read_held_out, read_responses
from schemas.config import EvaluationConfig
from schemas.frames import CROSS_ATTRIBUTION

NAMES = list(HABITS)
CONFIG = EvaluationConfig(group_sizes=(1, 5), n_groups=20, n_bootstrap=100)
CORPUS = persona_corpus()
ITEMS = CORPUS.filter(pl.col("split") == "test")["item_id"].unique().sort().to_list()


def answers(manner: dict[str, str], decision: str = "sampled", seed: int = 1) -> list[dict]:
    return [
        generation("sft", name, item, explanation=explain(manner[name], 100 + k), decision=decision, seed=seed)
        for name in NAMES
        for k, item in enumerate(ITEMS)
    ]


def evaluate(rows: list[dict]) -> tuple[pl.DataFrame, pl.DataFrame]:
    generations = generations_frame(rows)
    held_out = read_held_out(CORPUS, generations)
    attributed = attribute_writings(read_responses(generations, held_out), held_out, CONFIG, embed_by_letters)
    resampling = Resampling(len(held_out.items), CONFIG)
    metrics = [row for s in score_imitation(attributed, CONFIG) for row in metric_rows(s, NAMES, resampling)]
    return cross_attribution(attributed, NAMES, resampling), tabulate_metrics(metrics)


def test_text_goes_to_whose_manner_it_has() -> None:
    manner = {"ana": "ben", "ben": "ben", "cem": "cem", "dee": "ana"}
    matrix, _ = evaluate(answers(manner))
    assert matrix.schema == pl.Schema(CROSS_ATTRIBUTION)
    for imitated in NAMES:
        for attributed in NAMES:
            pair = {"imitated": imitated, "attributed": attributed, "condition": "raw", "group_size": 5}
            row = find(matrix, method="sft", **pair)
            assert row["share"] == (manner[imitated] == attributed)
            assert row["probability"] == pytest.approx(row["share"], abs=0.05)
    human = matrix.filter((pl.col("method") == "human") & (pl.col("imitated") == pl.col("attributed")))
    assert human["share"].to_list() == [1.0] * len(human)


def test_rows_sum_to_one_and_the_diagonal_is_the_accuracy() -> None:
    matrix, metrics = evaluate(answers(dict.fromkeys(NAMES, "cem"), seed=1) + answers({n: n for n in NAMES}, seed=2))
    keys = ["method", "condition", "group_size", "imitated"]
    for total in matrix.group_by(keys).agg(pl.col("share", "probability").sum()).iter_rows(named=True):
        assert (total["share"], total["probability"]) == pytest.approx((1.0, 1.0), abs=1e-5)
    assert matrix.filter(pl.col("method") == "sft")["n_seeds"].unique().to_list() == [2]
    for row in matrix.filter(pl.col("imitated") == pl.col("attributed")).iter_rows(named=True):
        key = {name: row[name] for name in ("method", "decision", "condition", "classifier", "group_size")}
        for metric, column in (("attribution_accuracy", "share"), ("attribution_probability", "probability")):
            value = find(metrics, **key, annotator_id=row["imitated"], metric=metric)["value"]
            assert row[column] == pytest.approx(value, abs=1e-6)


def test_only_sampled_and_peoples_text_under_ngrams_without_reduction_is_shown() -> None:
    matrix, _ = evaluate(answers({n: n for n in NAMES}) + answers({n: n for n in NAMES}, "greedy"))
    assert matrix.select("method", "decision").unique().sort("method").rows() == [("human", None), ("sft", "sampled")]
    assert sorted(matrix["condition"].unique()) == ["raw", "surface_normalised"]
    assert matrix["classifier"].unique().to_list() == ["ngrams"]
    assert matrix.select("method", "condition", "classifier", "group_size", "imitated", "attributed").is_unique().all()


def test_pairs_without_enough_explanations_have_no_row() -> None:
    rows = answers({n: n for n in NAMES})
    for row in rows:
        if row["annotator_id"] == "ben" and row["item_id"] not in ITEMS[:3]:
            row |= {"explanation": None, "parse_status": "no_explanation"}
    matrix, _ = evaluate(rows)
    of_ben = matrix.filter((pl.col("method") == "sft") & (pl.col("imitated") == "ben"))
    assert of_ben["group_size"].unique().to_list() == [1]
