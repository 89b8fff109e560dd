"""Group imitation: the classifier's verdict on generated text, its ceiling and its floor."""

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
from capo_core.evaluation.imitation import score_imitation
from capo_core.evaluation.scores import Resampling
from capo_core.evaluation.tables import metric_rows, tabulate_metrics
from capo_core.evaluation.targets import read_held_out, read_responses
from schemas.config import EvaluationConfig

NAMES = list(HABITS)


def imitate(corpus: pl.DataFrame, rows: list[dict], config: EvaluationConfig = QUICK) -> pl.DataFrame:
    generations = generations_frame(rows)
    held_out = read_held_out(corpus, generations)
    scores = score_imitation(read_responses(generations, held_out), held_out, config)
    resampling = Resampling(len(held_out.items), config)
    return tabulate_metrics(row for one in scores for row in metric_rows(one, held_out.annotators, resampling))


def accuracy(
    metrics: pl.DataFrame, method: str = "sft", condition: str = "raw", size: int = 3, who: str = "all"
) -> dict:
    return find(metrics, method=method, condition=condition, group_size=size, annotator_id=who)


def written_as(method: str, manner: dict[str, str], corpus: pl.DataFrame, **more: object) -> list[dict]:
    """Return generations for every test item: imitating each annotator in the manner given for him."""
    items = corpus.filter(pl.col("split") == "test")["item_id"].unique().sort().to_list()
    return [
        generation(method, name, item, explanation=explain(manner[name], 100 + k)) | more
        for name in NAMES
        for k, item in enumerate(items)
    ]


PERFECT = {name: name for name in NAMES}


def test_text_in_the_persons_manner_is_taken_for_his() -> None:
    corpus = persona_corpus()
    metrics = imitate(corpus, written_as("sft", PERFECT, corpus))
    row = accuracy(metrics)
    assert (row["value"], row["n"], row["n_seeds"], row["decision"]) == (1.0, 8, 1, "sampled")
    assert accuracy(metrics, "human")["value"] == 1.0
    assert accuracy(metrics, "human")["decision"] is None


def test_text_in_another_ones_manner_is_not() -> None:
    corpus = persona_corpus()
    manner = {**PERFECT, "ana": "ben", "ben": "ana"}
    metrics = imitate(corpus, written_as("sft", manner, corpus))
    assert [accuracy(metrics, who=name)["value"] for name in NAMES] == [0.0, 0.0, 1.0, 1.0]
    assert accuracy(metrics)["value"] == 0.5


def test_text_that_imitates_nobody_scores_chance_exactly() -> None:
    # Whomever a group is given to, it is right for one annotator of four.
    corpus = persona_corpus()
    rows = [r | {"annotator_id": None} for r in written_as("zero_shot", PERFECT, corpus) if r["annotator_id"] == "cem"]
    metrics = imitate(corpus, rows)
    for size in (1, 3):
        assert accuracy(metrics, "zero_shot", size=size)["value"] == pytest.approx(0.25)
    assert accuracy(metrics, "zero_shot", who="cem")["value"] == 1.0


def test_shuffled_people_are_the_floor() -> None:
    corpus = persona_corpus(n_test=16)
    row = accuracy(imitate(corpus, written_as("sft", PERFECT, corpus)), "human", "shuffled", size=1)
    assert row["value"] == pytest.approx(0.25, abs=0.07)  # 640 guesses, sd .017, times a wide margin
    assert (row["n"], row["n_seeds"]) == (16, 1)


def test_case_and_punctuation_count_in_raw_text_only() -> None:
    # ana ends with a full stop, ben shouts; they say the same words.
    texts = {"ana": "{} is plain.", "ben": "{} IS PLAIN"}
    rows = [
        corpus_row(f"i{n:02d}", name, "neutral", text.format("abcdefghijklmnop"[n]), "test" if n >= 12 else "train")
        for n in range(16)
        for name, text in texts.items()
    ]
    generated = [
        generation("sft", name, f"i{n}", explanation=text.format("qrst"[n - 12]))
        for n in range(12, 16)
        for name, text in texts.items()
    ]
    metrics = imitate(corpus_frame(rows), generated)
    assert accuracy(metrics)["value"] == 1.0
    assert accuracy(metrics, condition="surface_normalised")["value"] == pytest.approx(0.5)


def test_white_space_around_an_explanation_is_nobodys_mark() -> None:
    # ana begins with a space, as the response format never does; otherwise nobody can be told from anybody.
    rows = [
        corpus_row(f"i{n:02d}", name, "neutral", f"{lead}same words {'abcd'[n % 4]}", "test" if n >= 12 else "train")
        for n in range(16)
        for name, lead in {"ana": " ", "ben": ""}.items()
    ]
    generated = [
        generation("sft", name, f"i{n}", explanation="same words a") for n in range(12, 16) for name in ("ana", "ben")
    ]
    metrics = imitate(corpus_frame(rows), generated)
    assert accuracy(metrics, "human", size=1)["value"] == pytest.approx(0.5)
    assert accuracy(metrics, "sft", size=1)["value"] == pytest.approx(0.5)


def test_test_explanations_never_reach_the_classifier() -> None:
    corpus = persona_corpus(n_train=8, n_validation=4, n_test=6)
    scrambled = corpus.with_columns(
        pl.when(pl.col("split") == "test")
        .then(pl.lit("zzz") + pl.col("annotator_id"))
        .otherwise("explanation")
        .alias("explanation")
    )
    mixed = {"ana": "ana", "ben": "ana", "cem": "dee", "dee": "dee"}
    rows = written_as("sft", mixed, corpus)
    first, second = (imitate(c, rows).filter(pl.col("method") == "sft") for c in (corpus, scrambled))
    assert first.equals(second)


def test_validation_explanations_teach_only_where_test_is_generated_for() -> None:
    # dee's training text looks like ana's; only in validation does she write as herself.
    corpus = persona_corpus(n_train=10, n_validation=10, n_test=6)
    odd = pl.col("annotator_id").eq("dee") & pl.col("split").eq("train")
    as_ana = pl.when(odd).then(pl.lit(explain("ana", 3))).otherwise("explanation").alias("explanation")
    corpus = corpus.with_columns(as_ana)
    on_test = imitate(corpus, written_as("sft", PERFECT, corpus))
    assert accuracy(on_test, who="dee")["value"] == 1.0
    renamed = corpus.with_columns(pl.col("split").replace({"test": "validation", "validation": "test"}))
    items = renamed.filter(pl.col("split") == "validation")["item_id"].unique().sort().to_list()
    rows = [generation("sft", "dee", item, explanation=explain("dee", 100 + k)) for k, item in enumerate(items)]
    on_validation = imitate(renamed, rows)
    assert accuracy(on_validation, who="dee")["value"] < 1.0


def test_groups_greater_than_the_readable_items_are_not_measured() -> None:
    corpus = persona_corpus(n_test=4)
    rows = written_as("sft", PERFECT, corpus)
    for row in rows:
        if row["annotator_id"] == "ben" and row["item_id"] != rows[0]["item_id"]:
            row |= {"explanation": None, "parse_status": "no_explanation"}
    metrics = imitate(corpus, rows)
    ben = accuracy(metrics, who="ben")
    assert (ben["value"], ben["ci_low"], ben["n"], ben["n_seeds"]) == (None, None, 0, 0)
    assert accuracy(metrics, size=1, who="ben")["n"] == 1
    assert accuracy(metrics)["value"] == 1.0  # the mean over those measured


def test_interval_is_withheld_where_a_group_takes_nearly_all_items() -> None:
    # 4 items: a resample seldom holds 4 different ones, so there is one group of 4 and nothing to say how it varies.
    corpus = persona_corpus(n_test=4)
    config = EvaluationConfig(group_sizes=(4,), n_groups=10, n_bootstrap=100)
    row = accuracy(imitate(corpus, written_as("sft", PERFECT, corpus), config), size=4)
    assert (row["value"], row["ci_low"], row["ci_high"], row["n"]) == (1.0, None, None, 4)


def test_one_annotator_in_training_is_an_error() -> None:
    corpus = persona_corpus().filter((pl.col("split") == "test") | (pl.col("annotator_id") == "ana"))
    with pytest.raises(CorpusError, match=r"at least two annotators.*ana"):
        imitate(corpus, written_as("sft", PERFECT, persona_corpus()))
