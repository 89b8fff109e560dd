"""What holds for whatever corpus there is: splits share no text, pairs join two people, masks hide words."""

from __future__ import annotations

import polars as pl
from evaluation_material import NLI
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from capo_core.errors import CorpusError
from capo_core.preference_pairs import build_demonstrations, build_preferences
from capo_core.quality import Candidate, check_candidates
from capo_core.splits import assign_splits, require_disjoint_splits
from capo_core.stylometry.reduction import reduce_texts
from capo_core.text import identity_form, words
from schemas.config import SplitConfig
from schemas.training import PairConfig

PEOPLE = ("ada", "ben", "chi")
ANNOTATION = st.tuples(
    st.integers(0, 19).map(lambda number: (f"text {number}", f"claim {number // 2}")),
    st.sampled_from(PEOPLE), st.sampled_from(NLI.labels.names),
    st.sampled_from(["it says so", "It  says so", "nothing says it", "because", "why not"]),
).map(lambda row: (*row[0], *row[1:]))  # fmt: skip
QUICK = settings(max_examples=60, deadline=None)


def _annotations(rows: list[tuple[str, ...]]) -> pl.DataFrame:
    candidates = [
        Candidate("f", line, str(line), a, b, who, label, why) for line, (a, b, who, label, why) in enumerate(rows)
    ]
    return check_candidates(candidates, NLI)[0]


def _corpus(rows: list[tuple[str, ...]], seed: int) -> pl.DataFrame:
    try:
        return assign_splits(_annotations(rows), SplitConfig(seed=seed))
    except CorpusError:
        assume(False)
        raise


@QUICK
@given(st.lists(ANNOTATION, min_size=15, max_size=40), st.integers(0, 5), st.randoms(use_true_random=False))
def test_no_text_stands_in_two_splits_whatever_the_order_of_rows(rows: list, seed: int, random: object) -> None:
    corpus = _corpus(rows, seed)
    require_disjoint_splits(corpus)
    found = {
        (identity_form(text), split)
        for column in ("text_a", "text_b")
        for text, split in corpus.select(column, "split").iter_rows()
    }
    assert len({text for text, _ in found}) == len(found)
    assert set(corpus["split"]) == {"train", "validation", "test"}
    split_of = dict(corpus.select("item_id", "split").iter_rows())
    again = list(rows)
    random.shuffle(again)  # type: ignore[attr-defined]
    assert dict(_corpus(again, seed).select("item_id", "split").iter_rows()) == split_of


@QUICK
@given(
    st.lists(ANNOTATION, min_size=15, max_size=40),
    st.integers(0, 5),
    st.sampled_from(["all", "same_label", "different_label"]),
)
def test_a_pair_prefers_the_target_over_somebody_else_on_the_same_item_outside_test(
    rows: list, seed: int, strategy: str
) -> None:
    corpus = _corpus(rows, seed)
    test_items = set(corpus.filter(split="test")["item_id"])
    for who in corpus["annotator_id"].unique():
        pairs, drops = build_preferences(corpus, who, NLI, PairConfig(strategy=strategy), tag=None)
        own = build_demonstrations(corpus, who, NLI, tag=None)
        assert not (set(pairs["item_id"]) | set(drops["item_id"]) | set(own["item_id"])) & test_items
        assert set(pairs["annotator_id"]) <= {who}
        assert who not in set(pairs["rejected_annotator_id"])
        assert set(pairs["item_id"]) <= set(own["item_id"])
        same = pairs["chosen_label"] == pairs["rejected_label"]
        assert strategy == "all" or all(same if strategy == "same_label" else ~same)
        assert all(chosen != rejected for chosen, rejected in pairs.select("chosen", "rejected").iter_rows())


@QUICK
@given(st.lists(st.text(max_size=30), min_size=3, max_size=3))
def test_masked_text_holds_no_word_of_the_input_and_keeps_the_rest(texts: list[str]) -> None:
    explanation, text_a, text_b = texts
    frame = pl.DataFrame({"explanation": [explanation], "text_a": [text_a], "text_b": [text_b]})
    (masked,) = reduce_texts(frame, "shared_words_masked", "none")
    assert not (set(words(masked)) & (set(words(text_a)) | set(words(text_b))))
    (kept,) = reduce_texts(frame.with_columns(text_a=pl.lit(""), text_b=pl.lit("")), "shared_words_masked", "none")
    assert kept == explanation
    (once,) = reduce_texts(frame, "none", "surface")
    (twice,) = reduce_texts(frame.with_columns(pl.Series("explanation", [once])), "none", "surface")
    assert once == twice
