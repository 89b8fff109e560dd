"""Group imitation: the classifier's verdict on generated text, its ceiling and its floor."""

from __future__ import annotations

import polars as pl
import pytest
from evaluation_material import (
    HABITS,
    QUICK,
    corpus_frame,
    corpus_row,
    embed_by_letters,
    explain,
    find,
    generation,
    generations_frame,
    persona_corpus,
)

from capo_core.errors import CorpusError
from capo_core.evaluation.imitation import attribute_writings, name_condition, score_imitation
from capo_core.evaluation.scores import Resampling
from capo_core.evaluation.tables import metric_rows, tabulate_metrics
from capo_core.evaluation.targets import read_held_out, read_responses
from capo_core.stylometry.reduction import Embed, Variant
from schemas.config import EvaluationConfig

NAMES = list(HABITS)
PLAIN = QUICK.model_copy(update={"reductions": ("none",), "classifiers": ("ngrams",)})
EVERY = QUICK.model_copy(
    update={
        "group_sizes": (1,),
        "reductions": (
            "none", "shared_words_masked", "content_words_masked",
            "embedding_minus_item_mean", "embedding_input_residual",
        ),
    }
)  # fmt: skip


def imitate(
    corpus: pl.DataFrame, rows: list[dict], config: EvaluationConfig = PLAIN, embed: Embed | None = None
) -> pl.DataFrame:
    generations = generations_frame(rows)
    held_out = read_held_out(corpus, generations)
    attributed = attribute_writings(read_responses(generations, held_out), held_out, config, embed)
    scores = score_imitation(attributed, config)
    resampling = Resampling(len(held_out.items), config)
    return tabulate_metrics(row for one in scores for row in metric_rows(one, held_out.annotators, resampling))


def accuracy(
    metrics: pl.DataFrame,
    method: str = "sft",
    condition: str = "raw",
    size: int = 3,
    who: str = "all",
    metric: str = "attribution_accuracy",
    classifier: str = "ngrams",
) -> dict:
    keys = {"method": method, "metric": metric, "condition": condition, "classifier": classifier}
    return find(metrics, **keys, group_size=size, annotator_id=who)


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
    # 30 shuffles of 16 items: as many matches of a random permutation with itself, variance 1/16 each, sd .011.
    assert row["value"] == pytest.approx(0.25, abs=0.04)
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
    config = PLAIN.model_copy(update={"group_sizes": (4,), "n_groups": 10})
    row = accuracy(imitate(corpus, written_as("sft", PERFECT, corpus), config), size=4)
    assert (row["value"], row["ci_low"], row["ci_high"], row["n"]) == (1.0, None, None, 4)


def test_one_annotator_in_training_is_an_error() -> None:
    corpus = persona_corpus().filter((pl.col("split") == "test") | (pl.col("annotator_id") == "ana"))
    with pytest.raises(CorpusError, match=r"at least two annotators.*ana"):
        imitate(corpus, written_as("sft", PERFECT, persona_corpus()))


def test_every_variant_has_its_condition_ceiling_and_floor() -> None:
    corpus = persona_corpus(n_train=16)
    metrics = imitate(corpus, written_as("sft", PERFECT, corpus), EVERY, embed_by_letters)
    metrics = metrics.filter((pl.col("annotator_id") == "all") & (pl.col("metric") == "attribution_accuracy"))
    textual = ["raw", "surface_normalised"]
    textual += [f"{r}_words_masked{s}" for r in ("content", "shared") for s in ("", "+surface")]
    embedded = [f"embedding_{r}{s}" for r in ("input_residual", "minus_item_mean") for s in ("", "+surface")]
    expected = sorted([(c, "ngrams") for c in textual] + [(c, "embeddings") for c in textual + embedded])
    for method in ("sft", "human"):
        plain = metrics.filter((pl.col("method") == method) & ~pl.col("condition").str.starts_with("shuffled"))
        assert sorted(plain.select("condition", "classifier").rows()) == expected
        assert plain["value"].null_count() == 0
    floor = metrics.filter(pl.col("condition").str.starts_with("shuffled"))
    names = ["shuffled" if c == "raw" else f"shuffled:{c}" for c, _ in expected]
    assert sorted(floor["condition"]) == sorted(names)
    assert floor["value"].to_list() == pytest.approx([0.25] * len(names), abs=0.06)  # 240 permutations, sd .016


def test_generated_text_loses_the_words_of_its_own_item() -> None:
    # The only difference between the two is which text they quote; masked, both write the same.
    quotes = {"ana": "because of {}", "ben": "because of that"}
    nouns = "abbey bakery cabin dairy estate forge garden harbour inn jetty kiln lodge mill nursery orchard pier"
    rows = [
        corpus_row(f"i{n:02d}", name, "neutral", text.format(word), "test" if n >= 12 else "train", text_a=word)
        for n, word in enumerate(nouns.split())
        for name, text in quotes.items()
    ]
    config = PLAIN.model_copy(update={"reductions": ("none", "shared_words_masked"), "group_sizes": (1,)})
    words = {row["item_id"]: row["text_a"] for row in rows}
    items = [item for item in words if item >= "i12"]
    generated = [
        generation("sft", name, item, explanation=f"because of {words[item]}") for item in items for name in quotes
    ]
    metrics = imitate(corpus_frame(rows), generated, config)
    masked = accuracy(metrics, condition="shared_words_masked", size=1, who="ana")
    assert masked["value"] == 1.0  # the mask is ana's mark
    assert accuracy(metrics, condition="shared_words_masked", size=1, who="ben")["value"] == 0.0


def test_item_means_are_those_of_people_not_of_the_generations() -> None:
    # All methods write the same for everybody: against the other generations nothing would be left to tell them by.
    corpus = persona_corpus(n_train=16)
    rows = written_as("sft", dict.fromkeys(NAMES, "dee"), corpus)
    config = PLAIN.model_copy(update={"reductions": ("embedding_minus_item_mean",), "classifiers": ("embeddings",)})
    metrics = imitate(corpus, rows, config, embed_by_letters)
    reading = {"condition": "embedding_minus_item_mean", "classifier": "embeddings", "size": 1}
    assert accuracy(metrics, who="dee", **reading)["value"] > 0.7
    assert accuracy(metrics, "human", **reading)["value"] > 0.7


def test_item_nobody_explained_has_no_mean_and_is_not_measured_there() -> None:
    corpus = persona_corpus(n_train=16)
    rows = written_as("sft", PERFECT, corpus)
    mute = pl.col("item_id") == rows[0]["item_id"]
    corpus = corpus.with_columns(pl.when(mute).then(None).otherwise("explanation").alias("explanation"))
    config = PLAIN.model_copy(
        update={"reductions": ("none", "embedding_minus_item_mean"), "classifiers": ("embeddings",)}
    )
    metrics = imitate(corpus, rows, config, embed_by_letters)
    reading = {"classifier": "embeddings", "size": 1}
    assert accuracy(metrics, condition="embedding_minus_item_mean", **reading)["n"] == 7
    assert accuracy(metrics, **reading)["n"] == 8


def test_without_an_encoder_embeddings_are_not_measured() -> None:
    corpus = persona_corpus()
    metrics = imitate(corpus, written_as("sft", PERFECT, corpus), QUICK)
    row = accuracy(metrics, classifier="embeddings")
    assert (row["value"], row["ci_low"], row["n"]) == (None, None, 0)
    assert accuracy(metrics)["value"] == 1.0


def test_probability_stands_beside_accuracy_and_is_chance_for_text_of_nobody() -> None:
    corpus = persona_corpus()
    rows = written_as("sft", PERFECT, corpus)
    rows += [r | {"method": "zero_shot", "annotator_id": None} for r in rows if r["annotator_id"] == "cem"]
    metrics = imitate(corpus, rows)
    # Posteriors sum to 1 over the four annotators the same text stands at.
    assert accuracy(metrics, "zero_shot", metric="attribution_probability")["value"] == pytest.approx(0.25, abs=1e-5)
    assert 0.5 < accuracy(metrics, metric="attribution_probability", size=1)["value"] < 1.0
    assert accuracy(metrics, metric="attribution_probability")["value"] > 0.95


def test_classifiers_agree_on_clear_text_however_wrong_it_is() -> None:
    corpus = persona_corpus(n_train=40)
    swapped = dict(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True))
    metrics = imitate(corpus, written_as("sft", swapped, corpus), QUICK, embed_by_letters)
    for condition in ("raw", "surface_normalised"):
        row = find(metrics, method="sft", metric="classifier_agreement", condition=condition, annotator_id="all")
        assert row["value"] > 0.8
        assert (row["classifier"], row["group_size"], row["n"]) == (None, None, 8)
    assert accuracy(metrics)["value"] == 0.0


def test_greedy_and_constrained_text_is_attributed_by_ngrams_without_reduction_only() -> None:
    corpus = persona_corpus()
    config = QUICK.model_copy(update={"reductions": ("none", "shared_words_masked"), "group_sizes": (1,)})
    rows = written_as("sft", PERFECT, corpus) + written_as("sft", PERFECT, corpus, decision="greedy")
    metrics = imitate(corpus, rows, config, embed_by_letters)
    greedy = metrics.filter((pl.col("decision") == "greedy") & (pl.col("annotator_id") == "all"))
    assert sorted(greedy.select("condition", "classifier").unique().rows()) == [
        ("raw", "ngrams"),
        ("surface_normalised", "ngrams"),
    ]
    sampled = metrics.filter((pl.col("decision") == "sampled") & (pl.col("metric") == "attribution_accuracy"))
    assert sampled.select("condition", "classifier").n_unique() == 8


@pytest.mark.parametrize(
    ("variant", "condition"),
    [
        (Variant("none", "none", "ngrams"), "raw"),
        (Variant("none", "surface", "embeddings"), "surface_normalised"),
        (Variant("shared_words_masked", "none", "ngrams"), "shared_words_masked"),
        (Variant("embedding_minus_item_mean", "surface", "embeddings"), "embedding_minus_item_mean+surface"),
    ],
)
def test_conditions_are_named_by_what_is_taken_away(variant: Variant, condition: str) -> None:
    assert name_condition(variant) == condition
