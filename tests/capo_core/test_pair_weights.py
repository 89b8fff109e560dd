"""What a pair counts: by hand, against scikit-learn's distances, and by what must not matter."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from evaluation_material import NLI, corpus_frame, corpus_row
from real_data import varierr_corpus
from sklearn.metrics.pairwise import nan_euclidean_distances
from sklearn.preprocessing import StandardScaler

from capo_core.errors import ConfigError, CorpusError
from capo_core.pair_weights import measure_distances, weigh_pairs
from capo_core.preference_pairs import build_preferences
from capo_core.stylometry.features import feature_matrix
from schemas.training import PairConfig

UNIFORM = PairConfig()
STYLE = PairConfig(weighting="style_distance")
VALIDITY = PairConfig(weighting="validity")


def _weights(corpus: pl.DataFrame, config: PairConfig, annotator: str = "ada") -> dict[tuple[str, str], float]:
    """Return the weight of each pair by item and rejected annotator."""
    preferences, _ = build_preferences(corpus, annotator, NLI, config, tag=None)
    return {(item, who): w for item, who, w in preferences.select("item_id", "rejected_annotator_id", "weight").rows()}


# Of the explanations of the training split, `Stone` and `stone` as often as each other, only two features differ:
# starts_lower_case, 0 or 1, and capital_rate, 1/5 or 0. Their means are 1/2 and 1/10, so are their deviations: -1 and 1
# for Stone, 1 and -1 for stone. The distance is the root of the mean over the two features.
STONES = [
    corpus_row("i1", "ada", "neutral", "Stone"),
    corpus_row("i1", "ben", "neutral", "stone"),
    corpus_row("i2", "ada", "neutral", "Stone", "validation"),
    corpus_row("i2", "ben", "neutral", "stone", "validation"),  # 2 and 2 apart: sqrt((4 + 4) / 2) = 2
    corpus_row("i2", "cai", "neutral", "STone", "validation"),  # capital_rate 2/5, deviation 3: 0 and 2 apart, sqrt 2
    corpus_row("i2", "dov", "neutral", "STOne", "validation"),  # 3/5, deviation 5, capped at 3: sqrt 2 as well
    corpus_row("i2", "eve", "entailment", "Stone", "validation"),  # no distance
    corpus_row("i2", "fay", "neutral", "stone.", "validation"),  # the full stop varies nowhere in training: 2
]


def test_style_weights_are_in_proportion_to_the_distance() -> None:
    total = 2 + 2 * math.sqrt(2) + 0 + 2
    distances = {"ben": 2.0, "cai": math.sqrt(2), "dov": math.sqrt(2), "eve": 0.0, "fay": 2.0}
    expected = {("i2", who): 5 * distance / total for who, distance in distances.items()}
    assert _weights(corpus_frame(STONES), STYLE) == pytest.approx(expected | {("i1", "ben"): 1.0}, abs=1e-12)


def test_white_space_around_an_explanation_is_no_style() -> None:
    spaced = [
        {**row, "explanation": f"  {row['explanation']}\n"} if row["annotator_id"] == "ben" else row for row in STONES
    ]
    assert _weights(corpus_frame(spaced), STYLE) == _weights(corpus_frame(STONES), STYLE)


def test_only_the_training_split_sets_the_scale() -> None:
    more = [
        corpus_row("i3", who, "neutral", text, split)
        for split in ("validation", "test")
        for who, text in (("ben", "NO!"), ("cai", "a much longer, (quieter) remark; it says more."))
    ]
    weights = _weights(corpus_frame([*STONES, *more]), STYLE)
    assert weights == _weights(corpus_frame(STONES), STYLE)
    again = [{**row, "split": "train"} for row in more]
    assert _weights(corpus_frame([*STONES, *again]), STYLE) != weights


def test_an_only_rejected_of_no_distance_still_weighs_one() -> None:
    corpus = corpus_frame([row for row in STONES if row["annotator_id"] in ("ada", "eve") or row["item_id"] == "i1"])
    assert _weights(corpus, STYLE) == {("i1", "ben"): 1.0, ("i2", "eve"): 1.0}


def test_a_training_split_without_any_variation_says_so() -> None:
    corpus = corpus_frame([row for row in STONES if row["item_id"] == "i2"])
    with pytest.raises(CorpusError, match=r"style_distance, but no style feature varies over the 0 explanations"):
        _weights(corpus, STYLE)
    same = corpus_frame([{**row, "explanation": "same"} for row in STONES if row["item_id"] == "i1"])
    assert _weights(same, STYLE) == {}  # nothing to weigh is no error: the two responses are identical


WRITTEN = [
    "Roofs are mentioned, but no trees.",
    "i guess so",
    "It follows: the man (who is old) eats.",
    "NO WAY!!",
    "123",  # without letters, starts_lower_case and capital_rate are undefined
    "…",  # without words, all rates are
    'He doesn\'t say "rain"; thus neutral.',
    "cannot tell, really cannot tell",
]


def test_distances_are_those_of_scikit_learn_where_undefined_features_are_passed_over() -> None:
    training = corpus_frame([corpus_row(f"i{n}", "ada", "neutral", text) for n, text in enumerate(WRITTEN)])
    n = len(WRITTEN)
    pairs = pl.DataFrame(
        {
            "explanation": [text for text in WRITTEN for _ in WRITTEN],
            "rejected_explanation": WRITTEN * n,
            "text_a": ["x"] * n * n,
            "text_b": ["y"] * n * n,
        }
    )
    texts = pl.DataFrame({"explanation": WRITTEN, "text_a": "x", "text_b": "y"})
    scaled = np.clip(StandardScaler().fit_transform(feature_matrix(training)), -3, 3)
    varies = np.nanstd(feature_matrix(training), axis=0) > 0
    assert np.allclose(feature_matrix(texts), feature_matrix(training), equal_nan=True)
    # nan_euclidean scales the sum over the features defined up to all of them; ours is a mean over those defined.
    expected = nan_euclidean_distances(scaled[:, varies]) / math.sqrt(varies.sum())
    distances = measure_distances(pairs, training).to_numpy().reshape(n, n)
    assert np.isnan(feature_matrix(training)).any()
    np.testing.assert_allclose(distances, expected, atol=1e-7)  # scikit-learn subtracts squares, which costs digits


def _judged(verdicts: Sequence[bool | None] | None) -> str:
    judgements = None if verdicts is None else [{"annotator": "x", "makes_sense": one} for one in verdicts]
    return json.dumps({"judgments": judgements})


def _judged_corpus(verdicts: dict[str, Sequence[bool | None] | None]) -> pl.DataFrame:
    rows = [{**corpus_row("i1", "ada", "neutral", "own"), "metadata": _judged([False])}]
    for who, given in verdicts.items():
        rows.append({**corpus_row("i1", who, "neutral", f"by {who}"), "metadata": _judged(given)})
    return corpus_frame(rows)


def test_validity_weights_are_in_proportion_to_the_share_that_makes_sense() -> None:
    corpus = _judged_corpus({"ben": [True, False, False, False], "cai": [True, False], "dov": None, "eve": [False]})
    # 1/4, 1/2, 1 for what nobody judged, 0: mean 7/16.
    expected = {"ben": 4 / 7, "cai": 8 / 7, "dov": 16 / 7, "eve": 0.0}
    assert _weights(corpus, VALIDITY) == pytest.approx({("i1", who): w for who, w in expected.items()})


def test_rejected_explanations_that_all_make_no_sense_weigh_the_same() -> None:
    corpus = _judged_corpus({"ben": [False], "cai": [False, False]})
    assert _weights(corpus, VALIDITY) == {("i1", "ben"): 1.0, ("i1", "cai"): 1.0}


def test_a_corpus_without_judgements_refuses_weights_by_validity() -> None:
    with pytest.raises(ConfigError, match=r"pairs\.weighting is validity, but no explanation .* set it to uniform"):
        _weights(corpus_frame(STONES), VALIDITY)


MIXED = [
    corpus_row("i1", "ada", "neutral", "own"),
    corpus_row("i1", "ben", "neutral", "same"),
    corpus_row("i1", "cai", "entailment", "other"),
    corpus_row("i1", "dov", "contradiction", "another"),
    corpus_row("i2", "ada", "neutral", "own"),
    corpus_row("i2", "ben", "entailment", "other"),
]


@pytest.mark.parametrize(
    ("same_label_weight", "expected"),
    [
        (0.2, (1 / 3, 4 / 3, 4 / 3, 1.0)),  # .2, .8, .8: mean .6; one pair alone weighs 1
        (0.5, (1.0, 1.0, 1.0, 1.0)),
        (0.0, (0.0, 1.5, 1.5, 1.0)),  # 0, 1, 1: mean 2/3
        (1.0, (3.0, 0.0, 0.0, 1.0)),  # 1, 0, 0: mean 1/3; on i2 all weigh 0, which becomes uniform
    ],
)
def test_relation_weights_by_whether_the_labels_agree(same_label_weight: float, expected: tuple[float, ...]) -> None:
    config = PairConfig(weighting="relation", same_label_weight=same_label_weight)
    keys = [("i1", "ben"), ("i1", "cai"), ("i1", "dov"), ("i2", "ben")]
    assert _weights(corpus_frame(MIXED), config) == pytest.approx(dict(zip(keys, expected, strict=True)))


def test_two_responses_with_one_label_are_two_choices() -> None:
    rows = [
        *STONES[:2],
        corpus_row("i2", "ada", "neutral", "Stone", "validation"),
        corpus_row("i2", "ada", "neutral", "STONE", "validation"),
        corpus_row("i2", "ben", "neutral", "stone", "validation"),
        corpus_row("i2", "cai", "neutral", "STone", "validation"),
    ]
    preferences, _ = build_preferences(corpus_frame(rows), "ada", NLI, STYLE, tag=None)
    found = {
        (chosen[0]["content"].split()[-1], rejected[0]["content"].split()[-1]): weight
        for chosen, rejected, weight in preferences.filter(pl.col("item_id") == "i2")
        .select("chosen", "rejected", "weight")
        .rows()
    }
    # To Stone, stone is 2 away and STone sqrt 2: their mean is (2 + sqrt 2) / 2. STONE has the deviations -1 and 9,
    # capped at 3, which are those of STone, so that STone has no distance to it and all the weight is stone's.
    near = 2 * math.sqrt(2) / (2 + math.sqrt(2))
    expected = {
        ("Stone", "stone"): 2 * 2 / (2 + math.sqrt(2)),
        ("Stone", "STone"): near,
        ("STONE", "stone"): 2.0,
        ("STONE", "STone"): 0.0,
    }
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("config", [UNIFORM, STYLE, PairConfig(weighting="relation", same_label_weight=0.3)])
def test_weights_do_not_depend_on_row_order(config: PairConfig) -> None:
    rows = [
        corpus_row(f"i{item}", who, label, f"{WRITTEN[(item + place) % 8]} {who}", "train" if item else "validation")
        for item in range(4)
        for place, (who, label) in enumerate((("ada", "neutral"), ("ben", "neutral"), ("cai", "entailment")))
    ]
    corpus = corpus_frame(rows)
    for seed in range(3):
        assert _weights(corpus.sample(fraction=1.0, shuffle=True, seed=seed), config) == _weights(corpus, config)


def test_no_pairs_have_no_weights() -> None:
    alone = corpus_frame([row for row in STONES if row["annotator_id"] == "ada"])
    for config in (UNIFORM, STYLE, PairConfig(weighting="relation")):
        preferences, _ = build_preferences(alone, "ada", NLI, config, tag=None)
        assert preferences.is_empty()


def test_weights_are_returned_in_the_order_of_the_pairs() -> None:
    pairs = pl.DataFrame(
        {
            "item_id": ["i2", "i1", "i2"],
            "annotator_id": "ada",
            "chosen_label": "neutral",
            "response": "r",
            "relation": ["same_label", "same_label", "different_label"],
        }
    )
    weights = weigh_pairs(pairs, PairConfig(weighting="relation", same_label_weight=0.75), corpus_frame(STONES))
    assert weights.name == "weight"
    assert weights.to_list() == [1.5, 1.0, 0.5]  # .75 and .25, mean .5


@pytest.mark.parametrize("weighting", ["uniform", "style_distance", "validity", "relation"])
def test_varierr_weights_have_mean_one_over_each_chosen_response(weighting: str) -> None:
    corpus = varierr_corpus()
    settings = {"weighting": weighting} | ({"same_label_weight": 0.8} if weighting == "relation" else {})
    config = PairConfig.model_validate(settings)
    preferences, _ = build_preferences(corpus, "Ann1", NLI, config, tag=None)
    response = pl.col("chosen").list.first().struct.field("content")
    means = preferences.group_by("item_id", "chosen_label", response).agg(pl.col("weight").mean())["weight"]
    assert preferences["weight"].min() >= 0  # type: ignore[operator]
    assert means.to_list() == pytest.approx([1.0] * means.len())
    assert (preferences["weight"].n_unique() > 1) == (weighting != "uniform")
