"""Similarity to the person's explanation and its specificity, against arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from evaluation_material import QUICK, corpus_frame, corpus_row, embed_by_letters, find, generation, generations_frame
from rouge_score.rouge_scorer import RougeScorer

from capo_core.bundled_models import ENCODER_ID
from capo_core.evaluation.scores import Resampling
from capo_core.evaluation.similarity import EmbedTokens, bertscore_f1, chrf, cosines, rouge_l, score_similarity
from capo_core.evaluation.tables import metric_rows, tabulate_metrics
from capo_core.evaluation.targets import read_held_out, read_responses
from capo_core.models import load_encoder, resolve_model
from capo_core.stylometry.reduction import Embed


def corpus(*test_rows: tuple[str, str, str]) -> pl.DataFrame:
    """Return a corpus with these (item, annotator, explanation) as test annotations."""
    rows = [corpus_row(item, name, "neutral", text, "test") for item, name, text in test_rows]
    return corpus_frame([*rows, corpus_row("r", "ana", "neutral", "x"), corpus_row("r", "ben", "neutral", "x")])


def embed_words(texts: list[str]) -> list[np.ndarray]:
    """Return the letter counts of every word: a token encoder small enough to compute by hand."""
    return [embed_by_letters(text.split()).reshape(-1, 26) for text in texts]


def compare(
    frame: pl.DataFrame, rows: list[dict], embed: Embed | None = None, embed_tokens: EmbedTokens | None = None
) -> pl.DataFrame:
    generations = generations_frame(rows)
    held_out = read_held_out(frame, generations)
    scores = score_similarity(read_responses(generations, held_out), held_out, embed, embed_tokens)
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


def test_chrf_by_hand() -> None:
    # "abc" against "abd": single letters 2 of 3, pairs ab of ab bc 1/2, triples 0; longer ones neither has. Precision
    # and recall are both (2/3 + 1/2 + 0) / 3 = 7/18, and so is their F.
    # "ab" for "abcd": orders both have are 1 and 2. P = (2/2 + 1/1) / 2 = 1, R = (2/4 + 1/3) / 2 = 5/12;
    # F_2 = 5 P R / (4 P + R) = (25/12) / (53/12) = 25/53. White space does not count: "a b" is "ab".
    pairs = [("abc", "abd"), ("ab", "abcd"), ("a b", "a bcd"), ("x", "y"), ("", "y"), ("the same", "the same")]
    assert chrf(pairs) == pytest.approx([7 / 18, 25 / 53, 25 / 53, 0.0, 0.0, 1.0])


def test_chrf_leans_to_recall() -> None:
    # The longer generated text has the recall: P = 5/12, R = 1: F_2 = 5 · 5/12 / (20/12 + 1) = 25/32.
    assert chrf([("abcd", "ab")]) == pytest.approx([25 / 32])


def test_bertscore_by_hand() -> None:
    # Generated tokens a, b; the person's a, ab = (1, 1) / √2. Cosines: a·a 1, a·ab 1/√2, b·a 0, b·ab 1/√2.
    # P = (1 + 1/√2) / 2; R = (1 + 1/√2) / 2: F1 the same. One token a against a and b: P = 1, R = 1/2, F1 = 2/3.
    half = (1 + 1 / np.sqrt(2)) / 2
    assert bertscore_f1([("a b", "a ab"), ("a", "a b"), ("a", "b"), ("", "a")], embed_words) == pytest.approx(
        [half, 2 / 3, 0.0, 0.0]
    )


def test_bertscore_does_not_depend_on_the_length_of_the_embeddings() -> None:
    def embed(texts: list[str]) -> list[np.ndarray]:
        return [3.0 * vectors for vectors in embed_words(texts)]

    assert bertscore_f1([("a", "a b")], embed) == pytest.approx([2 / 3])


def test_tokens_are_embedded_a_bounded_number_of_texts_at_a_time() -> None:
    calls: list[list[str]] = []

    def embed(texts: list[str]) -> list[np.ndarray]:
        calls.append(list(texts))
        return embed_words(texts)

    pairs = [(f"{'a' * (n + 1)} b", "a c") for n in range(700)]
    assert bertscore_f1(pairs, embed) == pytest.approx([0.5] * 700)  # P and R: one of two tokens matched
    # 512 texts at most: 511 generated and the person's, then the other 189 and the person's again.
    assert [len(texts) for texts in calls] == [512, 190]
    assert all(len(set(texts)) == len(texts) for texts in calls)


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


def test_every_similarity_has_its_specificity_and_control() -> None:
    # The sft text is ana's own and has nothing of ben's: similarity 1 and 0, specificity 1 for ana and -1 for ben.
    frame = corpus(("t", "ana", "aa bb"), ("t", "ben", "cc dd"))
    rows = [generation("sft", name, "t", explanation="aa bb") for name in ("ana", "ben")]
    metrics = compare(frame, rows, embed_by_letters, embed_words)
    for metric, specificity in (
        ("rouge_l", "rouge_l_specificity"),
        ("chrf", "chrf_specificity"),
        ("embedding_similarity", "embedding_specificity"),
        ("bertscore_f1", "bertscore_specificity"),
    ):
        assert value(metrics, metric, "ana") == pytest.approx(1.0)
        assert value(metrics, specificity, "ana") == pytest.approx(1.0)
        assert value(metrics, specificity, "ben") == pytest.approx(-1.0)
        control = find(metrics, method="human", condition="other_annotator", metric=metric, annotator_id="all")
        assert (control["value"], control["n"]) == (pytest.approx(0.0), 1)


def test_without_a_token_encoder_bertscore_is_not_measured() -> None:
    metrics = compare(corpus(("t", "ana", "aab"), ("t", "ben", "c")), [generation("sft", "ana", "t")], embed_by_letters)
    for metric in ("bertscore_f1", "bertscore_specificity"):
        row = find(metrics, method="sft", metric=metric, annotator_id="all")
        assert (row["value"], row["n"], row["n_seeds"]) == (None, 0, 0)


def test_constrained_decisions_have_all_similarities_but_bertscore() -> None:
    frame = corpus(("t", "ana", "aa bb"), ("t", "ben", "cc"))
    rows = [
        generation("sft", "ana", "t", explanation="aa", decision=decision) for decision in ("greedy", "constrained")
    ]
    metrics = compare(frame, rows, embed_by_letters, embed_words)
    for metric in ("rouge_l", "chrf", "embedding_similarity", "bertscore_f1"):
        assert value(metrics, metric, "ana", decision="greedy") is not None
        measured = value(metrics, metric, "ana", decision="constrained") is not None
        assert measured == (metric != "bertscore_f1")  # although the same text was matched for greedy


def test_a_pair_is_compared_once_whatever_methods_and_seeds_share_it() -> None:
    calls: list[str] = []

    def embed(texts: list[str]) -> list[np.ndarray]:
        calls.extend(texts)
        return embed_words(texts)

    frame = corpus(("t", "ana", "aa bb"), ("t", "ben", "cc"), ("u", "ana", "ee"))
    rows = [
        generation(method, "ana", item, explanation="the same", seed=seed)
        for method in ("sft", "capo")
        for item in ("t", "u")
        for seed in (1, 2)
    ]
    compare(frame, rows, None, embed)
    assert sorted(calls) == ["aa bb", "cc", "ee", "the same"]


def test_token_encoder_gives_the_bundled_models_last_layer_without_special_tokens(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    reference = resolve_model(ENCODER_ID, cache_dir=tmp_path)
    texts = ["Women work.", "It says that the women do not work at all", ""]
    ours = load_encoder(reference).embed_tokens(texts)
    tokenizer, model = (
        kind.from_pretrained(reference.path, local_files_only=True) for kind in (AutoTokenizer, AutoModel)
    )
    for text, tokens in zip(texts, ours, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert tokens.dtype == np.float32
        np.testing.assert_allclose(tokens, hidden[1:-1].numpy(), atol=1e-5)  # without [CLS] and [SEP]
    assert ours[2].shape == (0, 384)


def test_token_encoder_of_no_texts_gives_nothing(tmp_path: Path) -> None:
    assert load_encoder(resolve_model(ENCODER_ID, cache_dir=tmp_path)).embed_tokens([]) == []
