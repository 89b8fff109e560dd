"""Distance of style and distinguishability, against arithmetic, scipy and scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from evaluation_material import HABITS, QUICK, corpus_frame, corpus_row, explain, generation, generations_frame
from evaluation_material import persona_corpus as personas
from scipy.stats import wasserstein_distance
from sklearn.metrics import roc_auc_score

from capo_core.errors import CorpusError
from capo_core.evaluation.caricature import LEAST_SCALE, score_style_distance, style_distances
from capo_core.evaluation.distinguishability import DistinguishabilityScores, held_out_scores, score_distinguishability
from capo_core.evaluation.own_text import draw_halves, draw_seen_text, seen_explanations
from capo_core.evaluation.scores import Draws, Resampling, ScoreName
from capo_core.evaluation.style_distance_scores import HumanStyle, StyleDistanceScores
from capo_core.evaluation.targets import HeldOut, Responses, read_held_out, read_responses
from capo_core.evaluation.wasserstein import ItemSample, build_step_functions, distances_between
from capo_core.statistics.significance import Resamples
from capo_core.stylometry.attribution import fit_attributor
from capo_core.stylometry.features import NAMES


def read(corpus: pl.DataFrame, rows: list[dict]) -> tuple[list[Responses], HeldOut, pl.DataFrame]:
    """Return responses, targets and item texts."""
    generations = generations_frame(rows)
    held_out = read_held_out(corpus, generations)
    items = corpus.select("item_id", "text_a", "text_b").unique()
    return read_responses(generations, held_out), held_out, items


def tabulate(corpus: pl.DataFrame, rows: list[dict]) -> pl.DataFrame:
    """Return the distances of every feature."""
    responses, held_out, items = read(corpus, rows)
    return style_distances(score_style_distance(responses, held_out, items, 1), held_out.annotators)


def two_people(*, test: tuple[str, str] = ("a b", "a b c d"), texts: str = "x") -> pl.DataFrame:
    """Return ana with two held-out and two training explanations, and ben."""
    rows = [corpus_row(f"t{i}", "ana", "neutral", text, "test", text_a=texts) for i, text in enumerate(test)]
    rows += [corpus_row(f"t{i}", "ben", "neutral", "a b c", "test", text_a=texts) for i in range(2)]
    rows += [corpus_row(f"r{i}", "ana", "neutral", text) for i, text in enumerate(("a b", "a b c d"))]
    rows += [corpus_row(f"r{i}", "ben", "neutral", text) for i, text in enumerate(("a b", "a b c d e f"))]
    return corpus_frame(rows)


def answers(method: str, texts: tuple[str, ...], annotator: str = "ana", seed: int = 1) -> list[dict]:
    return [generation(method, annotator, f"t{i}", explanation=text, seed=seed) for i, text in enumerate(texts)]


def figures(table: pl.DataFrame, feature: str, annotator: str = "ana", method: str = "sft") -> dict:
    wanted = (pl.col("feature") == feature) & (pl.col("annotator_id") == annotator) & (pl.col("method") == method)
    return table.filter(wanted).row(0, named=True)


def value(scores: StyleDistanceScores | DistinguishabilityScores, n_items: int) -> np.ndarray:
    """Return the point estimate per annotator."""
    return scores.estimate(Resampling(n_items, QUICK).whole(scores.n_slices if scores.seeds else 1))[0]


def test_standardised_distance_of_lengths_by_hand() -> None:
    # ana's held-out texts have 2 and 4 words, the generated 1 and 3: each is moved by 1. All her texts: 2, 4, 2, 4
    # words, mean 3, variance 4/3. ben's two of 3 words are each moved by 1 to hers as well.
    table = tabulate(two_people(), answers("sft", ("a", "a b c")))
    row = figures(table, "words")
    sd = np.sqrt(4 / 3)
    assert row["distance"] == pytest.approx(1 / sd)
    assert row["others_distance"] == pytest.approx(1 / sd)
    assert row["halves_distance"] == pytest.approx(0)  # her other two texts have 2 and 4 words
    assert (row["n_generated"], row["n_human"]) == (2, 2)


def test_a_habit_without_variation_is_measured_in_half_of_everybodys_deviation() -> None:
    # ben's held-out and training texts: 3, 3, 2, 6. ana's all have 3 words now: pooled 3 3 3 3 3 3 2 6.
    frame = two_people(test=("a b c", "a b c")).with_columns(
        pl.when((pl.col("annotator_id") == "ana") & (pl.col("split") == "train"))
        .then(pl.lit("a b c"))
        .otherwise("explanation")
        .alias("explanation")
    )
    row = figures(tabulate(frame, answers("sft", ("a", "a"))), "words")
    pooled = np.std([3, 3, 3, 3, 3, 3, 2, 6], ddof=1)
    assert row["distance"] == pytest.approx(2 / (LEAST_SCALE * pooled))


def test_what_does_not_vary_in_peoples_text_has_no_distance() -> None:
    table = tabulate(two_people(), answers("sft", ("1, 2", "3, 4")))
    row = figures(table, "comma_rate")
    assert (row["distance"], row["others_distance"], row["n_generated"]) == (None, None, 0)


def test_table_has_every_feature_of_every_annotator_and_missing_text_is_missing() -> None:
    table = tabulate(two_people(), answers("sft", ("a", "a b c")))
    assert table.height == 2 * len(NAMES)
    row = figures(table, "words", "ben")  # nobody imitated ben
    assert (row["distance"], row["n_generated"], row["n_human"]) == (None, 0, 2)
    assert row["others_distance"] is not None


def test_distances_are_averaged_over_seeds() -> None:
    # Seed 1: as above, 1. Seed 2: 4 and 6 words, each moved by 2. Mean 1.5.
    rows = [*answers("sft", ("a", "a b c")), *answers("sft", ("a b c d", "a b c d e f"), seed=2)]
    row = figures(tabulate(two_people(), rows), "words")
    assert row["distance"] == pytest.approx(1.5 / np.sqrt(4 / 3))
    assert row["n_generated"] == 4


def test_several_explanations_of_one_item_weigh_as_one() -> None:
    # Item t0 has explanations of 1 and 3 words (weight 1/2 each), t1 one of 2. Generated: 2 and 2. The halves are
    # moved by 1 each: (1/2 + 1/2) / 2 = 1/2.
    frame = two_people(test=("a", "a b"))
    extra = corpus_frame([corpus_row("t0", "ana", "entailment", "a b c", "test", text_a="x")])
    responses, held_out, items = read(pl.concat([frame, extra]), answers("sft", ("a b", "a b")))
    scores = score_style_distance(responses, held_out, items, 1)[0]
    column = scores.human.names.index("words")
    assert scores.by_feature()[0, column] * scores.human.scales[0, column] == pytest.approx(0.5)


def test_white_space_around_explanations_does_not_count() -> None:
    def table(frame: pl.DataFrame, texts: tuple[str, str]) -> pl.DataFrame:
        return tabulate(frame, answers("sft", texts))

    spaced = two_people().with_columns(pl.concat_str(pl.lit("  "), "explanation", pl.lit("\n")).alias("explanation"))
    assert table(spaced, (" a ", "a b c ")).equals(table(two_people(), ("a", "a b c")))


def test_item_texts_must_be_there_once() -> None:
    responses, held_out, items = read(two_people(), answers("sft", ("a", "a")))
    with pytest.raises(CorpusError, match="t1"):
        score_style_distance(responses, held_out, items.filter(pl.col("item_id") != "t1"), 1)
    changed = items.filter(pl.col("item_id") == "t1").with_columns(text_b=pl.lit("other"))
    with pytest.raises(CorpusError, match="t1"):
        score_style_distance(responses, held_out, pl.concat([items, changed]), 1)


def test_own_manner_is_nearer_than_anothers_and_controls_bracket_it() -> None:
    corpus = personas(n_train=24, n_test=12)
    test_items = sorted(corpus.filter(pl.col("split") == "test")["item_id"].unique())
    own = [
        generation("capo", a, item, explanation=explain(a, 50 + n)) for a in HABITS for n, item in enumerate(test_items)
    ]
    loud = [row | {"method": "sft", "explanation": row["explanation"] * 3} for row in own]
    responses, held_out, items = read(corpus, own + loud)
    scores = {(s.name.method, s.name.condition): s for s in score_style_distance(responses, held_out, items, 1)}
    means = {key: float(value(one, 12).mean()) for key, one in scores.items()}
    assert means["capo", None] < 1.5 * means["human", "split_half"]
    assert means["human", "split_half"] < 0.5 * means["human", "other_annotator"]
    assert means["sft", None] > 2 * means["capo", None]
    assert scores["sft", None].swap_p_value(scores["capo", None], Resampling(12, QUICK)) < 0.05


def test_nothing_depends_on_the_order_of_rows() -> None:
    corpus = personas(n_train=12, n_test=12).filter(pl.col("annotator_id") < "c")
    rows = [row for row in answers_of_personas(range(12, 24), shift=3) if row["annotator_id"] < "c"]
    first = read(corpus, rows)
    second = read(corpus.sample(fraction=1, shuffle=True, seed=1), rows[::-1])
    one, other = (style_distances(score_style_distance(*each, 1), each[1].annotators) for each in (first, second))
    assert one.equals(other)
    one, other = (score_distinguishability(*material[:2], 1) for material in (first, second))
    assert all(np.array_equal(a.wins, b.wins) for a, b in zip(one, other, strict=True))


def simulated(shape: tuple[int, int, int] = (2, 2, 9), seed: int = 0) -> StyleDistanceScores:
    """Return scores of three simulated features, some missing, one with few values."""
    rng = np.random.default_rng(seed)
    human = rng.normal(size=(*shape[1:], 2, 3))
    human[..., 2] = rng.integers(0, 2, size=human.shape[:-1])
    human[:, ::2, 1] = np.nan  # every other item has one explanation only
    features = rng.normal(0.5, 1, size=(*shape, 3))
    features[..., 2] = rng.integers(0, 2, size=shape)
    features[:, :, 3, 1] = np.nan
    features[:, :, 4] = np.nan
    style = HumanStyle(human, rng.uniform(0.5, 2, size=(shape[1], 3)), ("f", "g", "h"))
    return StyleDistanceScores(ScoreName("sft", "sampled", "style_distance"), (1, 2), features, style)


def weighted_distance(scores: StyleDistanceScores, slice_: int, annotator: int, counts: np.ndarray) -> float:
    """Return the mean standardised distance of one series by scipy."""
    own = scores.human.sample(annotator)
    found = []
    for feature, scale in enumerate(scores.human.scales[annotator]):
        generated = scores.features[slice_, annotator, :, feature]
        here, there = ~np.isnan(generated) & (counts > 0), ~np.isnan(own.values[:, feature]) & (counts[own.items] > 0)
        weights = (counts[here], (own.weights * counts[own.items])[there])
        found.append(wasserstein_distance(generated[here], own.values[there, feature], *weights) / scale)
    return float(np.mean(found))


def test_replicates_are_scipys_distances_shifted_to_the_estimate() -> None:
    scores = simulated()
    counts = np.random.default_rng(1).multinomial(9, np.full(9, 1 / 9), size=40)
    for slice_, annotator in np.ndindex(2, 2):
        only = scores.at_seeds((scores.seeds[slice_],))
        found = only.estimate(Draws(Resamples(counts, np.ones((40, 1), dtype=int)), None))[:, annotator]  # pyright: ignore[reportArgumentType]
        expected = np.array([weighted_distance(scores, slice_, annotator, row) for row in counts])
        whole = weighted_distance(scores, slice_, annotator, np.ones(9))
        assert found == pytest.approx(np.maximum(expected - expected.mean() + whole, 0))
    assert value(scores, 9)[0] == pytest.approx(np.mean([weighted_distance(scores, s, 0, np.ones(9)) for s in (0, 1)]))
    assert value(scores, 9) == pytest.approx(np.nanmean(scores.by_feature(), axis=1))


def test_swapping_items_recomputes_the_distances() -> None:
    # With every item swapped the difference turns its sign, with none it is the observed one: both are among the
    # permutations' extremes. A method against itself never differs.
    first, second = simulated(seed=0), simulated(seed=5)
    second = replace(second, human=first.human, features=second.features + 1.5)
    resampling = Resampling(9, QUICK)
    assert first.swap_p_value(second, resampling) == pytest.approx(second.swap_p_value(first, resampling), abs=0.02)
    assert first.swap_p_value(second, resampling) < 0.1
    assert first.swap_p_value(first, resampling) == 1.0


def test_figures_of_no_cells_are_not_measured() -> None:
    scores = simulated().only(np.zeros((2, 2, 9), dtype=bool))
    assert np.isnan(value(scores, 9)).all()
    assert np.isnan(scores.swap_p_value(scores, Resampling(9, QUICK)))
    assert not scores.measured().any()


def test_scores_of_different_kinds_are_not_compared() -> None:
    wins = np.zeros((1, 1, 9, 9))
    other = DistinguishabilityScores(ScoreName("sft", None, "distinguishability"), (1,), wins, wins)
    with pytest.raises(TypeError, match="DistinguishabilityScores"):
        simulated().swap_p_value(other, Resampling(9, QUICK))
    with pytest.raises(TypeError, match="StyleDistanceScores"):
        other.swap_p_value(simulated(), Resampling(9, QUICK))


def test_step_functions_by_hand() -> None:
    # One item each: values 0, 2 against 1, 1. F - G is 1/2 on [0, 1), -1/2 on [1, 2): area 1; in units of 2: 1/2.
    # The second feature has the same value everywhere, distance 0; the third has none in the second sample.
    samples = [
        ItemSample(np.array([[0.0, 7, 1], [2, 7, 1]]), np.array([0, 1]), np.ones(2)),
        ItemSample(np.array([[1.0, 7, np.nan], [1, 7, np.nan]]), np.array([0, 1]), np.ones(2)),
    ]
    steps = build_step_functions(samples, np.array([2.0, 1, 1]), 2)
    sums = [(m.sum(axis=0)[None], t.sum(axis=0)[None]) for m, t in zip(steps.masses, steps.totals, strict=True)]
    assert distances_between(sums[0], sums[1], steps)[0] == pytest.approx([0.5, 0, np.nan], nan_ok=True)


def test_own_other_text_is_the_persons_and_not_held_out() -> None:
    _, held_out, _ = read(personas(n_train=6, n_test=8), answers_of_personas(range(6, 14)))
    drawn = draw_seen_text(held_out, 3, seed=1)
    seen = seen_explanations(held_out)
    # Six training explanations for eight items: two places stay empty, none is used twice.
    assert (drawn >= 0).sum(axis=2).tolist() == [[6] * 4] * 3
    for annotator, name in enumerate(held_out.annotators):
        rows = drawn[0, annotator][drawn[0, annotator] >= 0]
        assert len(set(rows)) == 6
        assert set(seen["annotator_id"].gather(rows)) == {name}


def test_halves_have_no_text_in_common() -> None:
    _, held_out, _ = read(personas(n_train=6, n_test=8), answers_of_personas(range(6, 14)))
    first, second = draw_halves(held_out, 2, seed=1)
    for series in np.ndindex(2, 4):
        sides = [{text for text in half[series] if text is not None} for half in (first, second)]
        assert [len(side) for side in sides] == [7, 7]  # of 6 + 8 explanations, all different
        assert not sides[0] & sides[1]


def answers_of_personas(numbers: range, shift: int = 0, ending: str = "") -> list[dict]:
    return [
        generation("sft", a, f"i{n:03d}", explanation=explain(a, n + shift) + ending) for a in HABITS for n in numbers
    ]


def distinguish(corpus: pl.DataFrame, rows: list[dict]) -> dict[tuple[str, str | None], np.ndarray]:
    """Return distinguishability per annotator, by method and condition."""
    responses, held_out, _ = read(corpus, rows)
    scores = score_distinguishability(responses, held_out, 1)
    return {(s.name.method, s.name.condition): value(s, len(held_out.items)) for s in scores}


def test_a_habit_of_punctuation_tells_raw_text_but_not_normalised() -> None:
    # Normalised, generated and own text of an item are the same and get the same score: within every fold each
    # win is another's loss, so the area is .5 exactly.
    found = distinguish(personas(n_train=5, n_test=20), answers_of_personas(range(5, 25), ending=" !!"))
    assert found["sft", "raw"] == pytest.approx(np.ones(4), abs=0.02)
    assert found["sft", "surface_normalised"] == pytest.approx(np.full(4, 0.5))


def test_foreign_manner_is_told_and_own_halves_are_not() -> None:
    corpus = personas(n_train=40, n_test=30)
    swapped = dict(zip(HABITS, [*list(HABITS)[1:], "ana"], strict=True))
    rows = [row | {"annotator_id": swapped[row["annotator_id"]]} for row in answers_of_personas(range(40, 70))]
    found = distinguish(corpus, rows)
    for condition in ("raw", "surface_normalised"):
        assert found["sft", condition].min() > 0.95
        assert abs(found["human", condition].mean() - 0.5) < 0.1


def test_held_out_scores_are_those_of_the_attribution_classifier() -> None:
    generated, own = ([explain(name, n) for n in range(9)] for name in ("ana", "ben"))
    folds = np.arange(9) % 3
    found = held_out_scores(generated, own, folds)
    train, test = np.flatnonzero(folds != 1), np.flatnonzero(folds == 1)
    learnt = [side[i] for side in (generated, own) for i in train]
    attributor = fit_attributor(learnt, ["generated"] * len(train) + ["own"] * len(train))
    for row, side in zip(found, (generated, own), strict=True):
        log_p = attributor.log_probabilities([side[i] for i in test], ["generated", "own"])
        assert row[test] == pytest.approx(log_p[:, 0] - log_p[:, 1], abs=1e-6)


@pytest.mark.parametrize("texts", [["", ""], ["a", "b"]])
def test_texts_with_nothing_in_common_tie(texts: list[str]) -> None:
    assert (held_out_scores(texts, ["", ""], np.array([0, 1])) == 0).all()


def test_few_items_are_not_measured() -> None:
    found = distinguish(personas(n_train=20, n_test=9), answers_of_personas(range(20, 29)))
    assert np.isnan(found["sft", "raw"]).all()


def test_texts_are_compared_only_within_their_fold() -> None:
    rows = [row for row in answers_of_personas(range(5, 25)) if row["annotator_id"] == "ana"]
    responses, held_out, _ = read(personas(n_train=5, n_test=20).filter(pl.col("annotator_id") == "ana"), rows)
    pairs = score_distinguishability(responses, held_out, 1)[0].pairs
    assert (pairs.sum(axis=3) == 4).all()  # 20 items in 5 folds
    assert (pairs == np.swapaxes(pairs, 2, 3)).all()


def test_area_in_a_resample_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    generated, own = rng.integers(0, 6, 12).astype(float), rng.integers(0, 5, 12).astype(float)
    wins = np.heaviside(generated[:, None] - own, 0.5)[None, None]
    scores = DistinguishabilityScores(ScoreName("sft", None, "x"), (1,), wins, np.ones_like(wins))
    draws = Resampling(12, QUICK).bootstrap(1)
    found = scores.estimate(draws)[:, 0]
    counts = draws.resamples.item_counts
    truth, both = np.repeat([1, 0], 12), np.concatenate([generated, own])
    expected = [roc_auc_score(truth, both, sample_weight=np.tile(row, 2)) for row in counts]
    assert found == pytest.approx(np.array(expected))


def test_swapping_turns_the_sign_of_an_items_wins() -> None:
    # Ten items, one fold: the first method always wins, the second never. Only 2 of 2^10 sign patterns are as extreme.
    ones = np.ones((1, 1, 10, 10))
    first = DistinguishabilityScores(ScoreName("sft", None, "x"), (1,), ones, ones)
    second = replace(first, wins=0 * ones)
    assert first.swap_p_value(second, Resampling(10, QUICK)) == pytest.approx(2 / 2**10)
    assert first.swap_p_value(first, Resampling(10, QUICK)) == 1.0
    nothing = first.only(np.zeros((1, 1, 10), dtype=bool))
    assert np.isnan(nothing.swap_p_value(nothing, Resampling(10, QUICK)))
