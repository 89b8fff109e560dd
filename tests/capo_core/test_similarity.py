"""Similarity to the person's explanation and its specificity, against arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from evaluation_material import QUICK, corpus_frame, corpus_row, embed_by_letters, find, generation, generations_frame
from rouge_score.rouge_scorer import RougeScorer

from capo_core.evaluation.scores import Resampling
from capo_core.evaluation.similarity import cosines, rouge_l, score_similarity
from capo_core.evaluation.tables import metric_rows, tabulate_metrics
from capo_core.evaluation.targets import read_held_out, read_responses
from capo_core.stylometry.reduction import Embed


def corpus(*test_rows: tuple[str, str, str]) -> pl.DataFrame:
    """Return a corpus with these (item, annotator, explanation) as test annotations."""
    rows = [corpus_row(item, name, "neutral", text, "test") for item, name, text in test_rows]
    return corpus_frame([*rows, corpus_row("r", "ana", "neutral", "x"), corpus_row("r", "ben", "neutral", "x")])


def compare(frame: pl.DataFrame, rows: list[dict], embed: Embed | None = None) -> pl.DataFrame:
    generations = generations_frame(rows)
    held_out = read_held_out(frame, generations)
    scores = score_similarity(read_responses(generations, held_out), held_out, embed)
    resampling = Resampling(len(held_out.items), QUICK)
    return tabulate_metrics(row for one in scores for row in metric_rows(one, held_out.annotators, resampling))


def value(metrics: pl.DataFrame, metric: str, annotator: str = "all", **more: object) -> float | None:
    return find(metrics, **{"method": "sft", "metric": metric, "annotator_id": annotator} | more)["value"]


def test_rouge_l_by_hand() -> None:
    # "the cat" in "the cat sat": longest common subsequence 2, precision 2/2, recall 2/3, F = 2·1·(2/3) / (5/3) = .8.
    # "a b c d" against "a c b d": subsequence a b d, 3/4 both ways.
    assert rouge_l([("the cat", "the cat sat"), ("a b c d", "a c b d"), ("x", "y"), ("", "y")]) == pytest.approx(
        [0.8, 0.75, 0.0, 0.0]
    )


def test_rouge_l_equals_the_package_where_its_own_tokeniser_reads_everything() -> None:
    pairs = [("The women work, I think.", "It says the women do not work"), ("no", "No, never!")]
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    assert rouge_l(pairs) == pytest.approx([scorer.score(b, a)["rougeL"].fmeasure for a, b in pairs])


def test_rouge_l_reads_other_scripts() -> None:
    assert rouge_l([("женщины работают", "Женщины работают.")]) == pytest.approx([1.0])


def test_cosines_by_hand() -> None:
    # "ab" = (1, 1), "aab" = (2, 1): 3 / (√2 √5) = 3 / √10. A text without letters is the zero vector.
    assert cosines([("ab", "aab"), ("a", "b"), ("1", "a")], embed_by_letters) == pytest.approx([3 / np.sqrt(10), 0, 0])


def test_every_text_is_embedded_once() -> None:
    calls: list[list[str]] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        calls.append(list(texts))
        return embed_by_letters(texts)

    cosines([("a", "b"), ("a", "c"), ("b", "a")], embed)
    assert calls == [["a", "b", "c"]]


def test_similarity_is_to_the_target_and_specificity_against_the_others() -> None:
    frame = corpus(("t", "ana", "the cat sat"), ("t", "ben", "no"))
    metrics = compare(
        frame,
        [generation("sft", "ana", "t", explanation="the cat"), generation("sft", "ben", "t", explanation="the cat")],
    )
    # To ana .8, to ben 0.
    assert value(metrics, "rouge_l", "ana") == pytest.approx(0.8)
    assert value(metrics, "rouge_l_specificity", "ana") == pytest.approx(0.8)
    assert value(metrics, "rouge_l_specificity", "ben") == pytest.approx(-0.8)
    assert value(metrics, "rouge_l") == pytest.approx(0.4)
    assert value(metrics, "rouge_l_specificity") == pytest.approx(0.0)


def test_specificity_averages_over_the_others() -> None:
    frame = corpus(("t", "ana", "the cat sat"), ("t", "ben", "no"), ("t", "cem", "the cat"))
    metrics = compare(frame, [generation("sft", "ana", "t", explanation="the cat")])
    # .8 - mean(0, 1) = .3
    assert value(metrics, "rouge_l_specificity", "ana") == pytest.approx(0.3)


def test_several_explanations_of_a_person_are_averaged() -> None:
    frame = corpus(("t", "ana", "the cat sat"), ("t", "ana", "no"), ("t", "ben", "x"))
    assert value(
        compare(frame, [generation("sft", "ana", "t", explanation="the cat")]), "rouge_l", "ana"
    ) == pytest.approx(0.4)


def test_specificity_is_not_measured_where_nobody_else_explained() -> None:
    frame = corpus(("t", "ana", "the cat sat"))
    metrics = compare(frame, [generation("sft", "ana", "t", explanation="the cat")])
    row = find(metrics, method="sft", metric="rouge_l_specificity", annotator_id="ana")
    assert (row["value"], row["n"]) == (None, 0)


def test_responses_that_imitate_nobody_have_no_specificity_on_average() -> None:
    frame = corpus(
        ("t", "ana", "the cat sat"), ("t", "ben", "cats do not sit"), ("u", "ana", "a b"), ("u", "ben", "b c")
    )
    metrics = compare(frame, [generation("zero_shot", None, item, explanation="the b sat") for item in ("t", "u")])
    assert value(metrics, "rouge_l_specificity", method="zero_shot") == pytest.approx(0.0)


def test_unreadable_explanations_are_not_measured() -> None:
    frame = corpus(("t", "ana", "the cat sat"), ("u", "ana", "the cat sat"))
    rows = [generation("sft", "ana", "t", explanation="the cat"), generation("sft", "ana", "u", explanation=None)]
    row = find(compare(frame, rows), method="sft", metric="rouge_l", annotator_id="ana")
    assert (row["value"], row["n"]) == (pytest.approx(0.8), 1)


def test_embedding_similarity_uses_the_encoder() -> None:
    frame = corpus(("t", "ana", "aab"), ("t", "ben", "c"))
    metrics = compare(frame, [generation("sft", "ana", "t", explanation="ab")], embed_by_letters)
    assert value(metrics, "embedding_similarity", "ana") == pytest.approx(3 / np.sqrt(10))
    assert value(metrics, "embedding_specificity", "ana") == pytest.approx(3 / np.sqrt(10))


def test_without_an_encoder_embedding_figures_are_not_measured() -> None:
    metrics = compare(corpus(("t", "ana", "aab"), ("t", "ben", "c")), [generation("sft", "ana", "t")])
    for metric in ("embedding_similarity", "embedding_specificity"):
        row = find(metrics, method="sft", metric=metric, annotator_id="all")
        assert (row["value"], row["n"], row["n_seeds"]) == (None, 0, 0)


def test_other_annotators_show_how_alike_people_are() -> None:
    frame = corpus(("t", "ana", "the cat sat"), ("t", "ben", "the cat"))
    metrics = compare(frame, [generation("sft", "ana", "t")])
    assert value(metrics, "rouge_l", method="human", condition="other_annotator") == pytest.approx(0.8)


def test_length_ratio_is_a_ratio_of_means() -> None:
    # ana wrote 3 and 1 words (mean 2), the method 2 and 4 (mean 3): 3/2, not the mean of 2/3 and 4.
    frame = corpus(("t", "ana", "the cat sat"), ("u", "ana", "no"))
    rows = [
        generation("sft", "ana", "t", explanation="two words"),
        generation("sft", "ana", "u", explanation="a b c d"),
    ]
    assert value(compare(frame, rows), "length_ratio", "ana") == pytest.approx(1.5)
