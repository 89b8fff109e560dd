"""Which of the other annotators' responses are rejected: by likeness of the explanations, and by their validity."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from evaluation_material import NLI, corpus_frame, corpus_row
from real_data import VARIERR_FILE, real_file, varierr_corpus

from capo_core.errors import ConfigError
from capo_core.preference_pairs import build_preferences
from schemas.section import PairStrategy
from schemas.training import PairConfig

# Unit vectors in the plane by the texts' angles; the cosine of two is that of the angle between them.
ANGLES = {
    "east": 0.0,
    "north east": 45.0,
    "north": 90.0,
    "east again": 0.0,
    "far north": 90.0,
    "south": 270.0,
    "unseen": 10.0,
    "nothing": np.nan,
}


def _embed(texts: Sequence[str]) -> np.ndarray:
    angles = np.radians([ANGLES[text] for text in texts])
    # Lengths other than 1, which a cosine does not see; "nothing" has no direction.
    return np.nan_to_num(3.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1))


@pytest.fixture
def corpus() -> pl.DataFrame:
    return corpus_frame(
        [
            corpus_row("i1", "ada", "neutral", "east"),
            corpus_row("i1", "ben", "neutral", "north east"),
            corpus_row("i1", "cai", "entailment", "north"),
            corpus_row("i2", "ada", "neutral", "north"),
            corpus_row("i2", "ada", "entailment", "south"),
            corpus_row("i2", "ben", "entailment", "far north"),
            corpus_row("i2", "cai", "neutral", "far north"),
            corpus_row("i2", "dov", "neutral", "east", "train"),
            corpus_row("i3", "ada", "neutral", "east", "test"),
            corpus_row("i3", "ben", "neutral", "unseen", "test"),
        ]
    )


def _build(corpus: pl.DataFrame, strategy: PairStrategy, annotator: str = "ada") -> tuple[pl.DataFrame, pl.DataFrame]:
    return build_preferences(corpus, annotator, NLI, PairConfig(strategy=strategy), tag=None, embed=_embed)


CHOICES = ["item_id", "chosen_label", "rejected_annotator_id", "similarity"]


def test_nearest_rejects_the_one_response_most_like_the_chosen(corpus: pl.DataFrame) -> None:
    preferences, drops = _build(corpus, "nearest")

    # i1: east to north east 45°, cosine √½ = .707107; to north 90°, 0.
    # i2, north: to far north 0°, cosine 1, twice (ben and cai): ben comes first by name.
    # i2, south: to far north 180°, -1; to east 90°, 0: dov.
    assert preferences.select(CHOICES).rows() == [
        ("i1", "neutral", "ben", 0.707107),
        ("i2", "entailment", "dov", 0.0),
        ("i2", "neutral", "ben", 1.0),
    ]
    assert drops.select("item_id", "rejected_annotator_id", "reason").rows() == [
        ("i1", "cai", "not_nearest"),
        ("i2", "ben", "not_nearest"),
        ("i2", "cai", "not_nearest"),
        ("i2", "cai", "not_nearest"),
        ("i2", "dov", "not_nearest"),
    ]


def test_farthest_rejects_the_one_response_least_like_the_chosen(corpus: pl.DataFrame) -> None:
    preferences, drops = _build(corpus, "farthest")

    assert preferences.select(CHOICES).rows() == [
        ("i1", "neutral", "cai", 0.0),
        ("i2", "entailment", "ben", -1.0),  # cai is as far; ben comes first by name
        ("i2", "neutral", "dov", 0.0),
    ]
    assert set(drops["reason"]) == {"not_farthest"}


def test_a_response_identical_to_the_targets_is_never_the_nearest(corpus: pl.DataFrame) -> None:
    same = corpus.with_columns(
        explanation=pl.when((pl.col("item_id") == "i1") & (pl.col("annotator_id") == "ben"))
        .then(pl.lit("east"))
        .otherwise("explanation")
    )
    preferences, drops = _build(same, "nearest")

    assert preferences.filter(pl.col("item_id") == "i1")["rejected_annotator_id"].to_list() == ["cai"]
    assert drops.filter(pl.col("item_id") == "i1")["reason"].to_list() == ["identical_response"]


def test_an_explanation_without_direction_has_no_similarity_and_is_taken_only_when_alone(corpus: pl.DataFrame) -> None:
    blank = corpus.with_columns(
        explanation=pl.when((pl.col("item_id") == "i1") & (pl.col("annotator_id") == "ben"))
        .then(pl.lit("nothing"))
        .otherwise("explanation")
    )
    for strategy in ("nearest", "farthest"):
        first = _build(blank, strategy)[0].filter(pl.col("item_id") == "i1")
        assert first["rejected_annotator_id"].to_list() == ["cai"]
    alone = _build(blank.filter((pl.col("annotator_id") != "cai") & (pl.col("item_id") == "i1")), "nearest")[0]
    assert alone.select("rejected_annotator_id", "similarity").rows() == [("ben", None)]


def test_only_the_ranked_strategies_embed_and_test_text_is_never_embedded(corpus: pl.DataFrame) -> None:
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return _embed(texts)

    for strategy in ("all", "same_label", "different_label"):
        pairs = PairConfig(strategy=strategy)
        preferences, _ = build_preferences(corpus, "ada", NLI, pairs, tag=None, embed=embed)
        assert preferences["similarity"].to_list() == [None] * preferences.height
    assert seen == []
    build_preferences(corpus, "ben", NLI, PairConfig(strategy="nearest"), tag=None, embed=embed)
    assert seen
    assert "unseen" not in seen


def test_a_ranked_strategy_without_an_encoder_says_so(corpus: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="'nearest' compares embeddings"):
        build_preferences(corpus, "ada", NLI, PairConfig(strategy="nearest"), tag=None)


@pytest.mark.parametrize("strategy", ["nearest", "farthest"])
def test_choice_does_not_depend_on_row_order(corpus: pl.DataFrame, strategy: PairStrategy) -> None:
    shuffled = corpus.sample(fraction=1.0, shuffle=True, seed=5)
    for one, other in zip(_build(corpus, strategy), _build(shuffled, strategy), strict=True):
        assert one.equals(other)


def _judged(verdicts: Sequence[bool | None] | None) -> str:
    judgements = None if verdicts is None else [{"annotator": "x", "makes_sense": one} for one in verdicts]
    return json.dumps({"judgments": judgements})


@pytest.fixture
def judged() -> pl.DataFrame:
    rows = [
        ("ada", "neutral", "east", _judged([False, False])),  # the target's own validity does not matter
        ("ben", "neutral", "north east", _judged([True, False, False, False])),  # 1/4
        ("cai", "entailment", "north", _judged([True, False])),  # 1/2
        ("dov", "neutral", "far north", _judged([None])),  # asked, not answered
        ("eve", "neutral", "south", _judged(None)),
        ("fay", "entailment", "east again", _judged([])),
    ]
    return corpus_frame(
        [{**corpus_row("i1", who, label, text), "metadata": metadata} for who, label, text, metadata in rows]
    )


@pytest.mark.parametrize(
    ("min_validity", "kept"),
    [
        (None, ["ben", "cai", "dov", "eve", "fay"]),
        (0.25, ["ben", "cai", "dov", "eve", "fay"]),
        (0.5, ["cai", "dov", "eve", "fay"]),
        (1.0, ["dov", "eve", "fay"]),  # not judged is not judged invalid
    ],
)
def test_explanations_that_too_few_judged_to_make_sense_are_dropped(
    judged: pl.DataFrame, min_validity: float | None, kept: list[str]
) -> None:
    preferences, drops = build_preferences(judged, "ada", NLI, PairConfig(min_validity=min_validity), tag=None)

    assert sorted(preferences["rejected_annotator_id"]) == kept
    assert set(drops["reason"]) <= {"judged_invalid"}
    assert preferences.height + drops.height == 5


def test_validity_comes_before_the_strategy(judged: pl.DataFrame) -> None:
    pairs = PairConfig(strategy="farthest", min_validity=0.5)
    preferences, drops = build_preferences(judged, "ada", NLI, pairs, tag=None, embed=_embed)
    # north east (ben) is judged valid by a quarter only. north, far north and south all lie 90° from east: cai is
    # the first by name.
    assert preferences["rejected_annotator_id"].to_list() == ["cai"]
    assert dict(drops["reason"].value_counts().iter_rows()) == {"judged_invalid": 1, "not_farthest": 3}
    same = PairConfig(strategy="different_label", min_validity=0.5)
    _, drops = build_preferences(judged, "ada", NLI, same, tag=None)
    reasons = drops.select("rejected_annotator_id", "reason").rows()
    assert reasons == [("ben", "judged_invalid"), ("dov", "relation_excluded"), ("eve", "relation_excluded")]


def test_a_corpus_without_judgements_refuses_min_validity(corpus: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match=r"pairs\.min_validity is set, but no explanation .* set it to null"):
        build_preferences(corpus, "ada", NLI, PairConfig(min_validity=0.5), tag=None)


def test_importing_pairs_loads_no_torch() -> None:
    code = "import sys, capo_core.preference_pairs, tasks.pairs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_varierr_explanations_that_most_judged_to_make_no_sense_are_never_rejected() -> None:
    # Counted straight from the file: (author, explanation) with fewer than half of the judgements true, never more.
    shares: dict[tuple[str, str], list[float]] = {}
    for line in real_file(VARIERR_FILE).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for entry in [entry for label in NLI.labels.names for entry in record[label]]:
            verdicts = [one["makes_sense"] for one in entry["judgments"]]
            author = f"Ann{int(entry['annotator']) + 1}"
            shares.setdefault((author, entry["reason"].strip()), []).append(sum(verdicts) / len(verdicts))
    invalid = {key for key, found in shares.items() if max(found) < 0.5}

    corpus = varierr_corpus()
    for person in ("Ann1", "Ann2", "Ann3", "Ann4"):
        everything, _ = build_preferences(corpus, person, NLI, PairConfig(), tag=None)
        valid, drops = build_preferences(corpus, person, NLI, PairConfig(min_validity=0.5), tag=None)
        assert _rejected(everything) & invalid, "the file holds such explanations"
        assert not _rejected(valid) & invalid
        assert valid.height == everything.height - drops.filter(pl.col("reason") == "judged_invalid").height


def _rejected(preferences: pl.DataFrame) -> set[tuple[str, str]]:
    texts = [turns[0]["content"].split("Explanation: ", 1)[1].strip() for turns in preferences["rejected"]]
    return set(zip(preferences["rejected_annotator_id"], texts, strict=True))
