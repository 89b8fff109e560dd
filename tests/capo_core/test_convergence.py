"""How figures settle as items and annotators accrue: on simulated corpora with known answers, and on real ones."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from real_data import paraphrase_corpus

from capo_core.agreement import agreement_table, krippendorff_alpha
from capo_core.agreement.alpha import weighted_alphas
from capo_core.agreement.ratings import Ratings
from capo_core.convergence import convergence_table, draw_sub_samples, sub_sample_sizes
from capo_core.errors import CorpusError
from capo_core.label_distributions import jensen_shannon_distance
from schemas.config import ConvergenceConfig
from schemas.frames import CONVERGENCE, CONVERGENCE_FITS

QUICK = ConvergenceConfig(n_sizes=5, n_repeats=4, group_size=2)
LABELS = ("x", "y", "z")
HABITS = {
    "amy": "clearly so, as stated",
    "ben": "I guess it may be",
    "cat": "NOT in the text",
    "dan": "because of that",
}
NOUNS = ("river", "engine", "teacher", "garden", "letter", "window", "market", "bottle")


def draw_labels(n_items: int, n_annotators: int, rng: np.random.Generator) -> np.ndarray:
    """Return labels [I, A] that are the item's in six of ten cases and else any."""
    truth = rng.integers(3, size=(n_items, 1))
    return np.where(rng.random((n_items, n_annotators)) < 0.6, truth, rng.integers(3, size=(n_items, n_annotators)))


def simulate(n_items: int, n_annotators: int = 4, seed: int = 1) -> pl.DataFrame:
    """Return a corpus of items in the splits train, validation and test, 3 : 1 : 1, with texts of four habits."""
    rng = np.random.default_rng(seed)
    labels = draw_labels(n_items, n_annotators, rng)
    names = [*HABITS, *(f"p{i}" for i in range(n_annotators))][:n_annotators]
    rows = [
        (
            f"i{i:04}",
            name,
            LABELS[labels[i, a]],
            f"{HABITS.get(name, name)} the {NOUNS[rng.integers(8)]} and the {NOUNS[rng.integers(8)]}",
            ("train", "train", "train", "validation", "test")[i % 5],
        )
        for i in range(n_items)
        for a, name in enumerate(names)
    ]
    columns = ("item_id", "annotator_id", "label", "explanation", "split")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def draw_fresh(n_items: int, n_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return α, and the distance from the equal shares behind the labels, of independent samples of n items."""
    names = tuple(f"i{i}" for i in range(n_items))
    alphas, distances = np.empty(n_samples), np.empty(n_samples)
    for number in range(n_samples):
        given = np.eye(3, dtype=bool)[draw_labels(n_items, 4, rng)]
        ratings = Ratings(given, names, tuple(HABITS), LABELS)
        alphas[number] = weighted_alphas(ratings, "nominal", np.ones((1, n_items)))[0]
        distances[number] = jensen_shannon_distance(given.sum(axis=(0, 1)), np.ones(3))
    return alphas, distances


def rows_of(table: pl.DataFrame, quantity: str, axis: str = "items") -> pl.DataFrame:
    return table.filter((pl.col("quantity") == quantity) & (pl.col("axis") == axis))


@pytest.fixture(scope="module")
def converged() -> tuple[pl.DataFrame, pl.DataFrame]:
    return convergence_table(simulate(100), "nominal", QUICK)


def test_tables_have_their_columns_and_every_series(converged: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    table, fits = converged
    assert table.schema == pl.Schema(CONVERGENCE)
    assert fits.schema == pl.Schema(CONVERGENCE_FITS)
    assert fits.select("quantity", "axis").rows() == [
        ("krippendorff_alpha_nominal", "items"),
        ("label_distribution_distance", "items"),
        ("attribution_accuracy", "items"),
        ("krippendorff_alpha_nominal", "annotators"),
        ("label_distribution_distance", "annotators"),
    ]
    assert table.select("quantity", "axis").unique().height == 5


def test_sizes_are_evenly_spaced_on_a_log_scale_up_to_all() -> None:
    # From max(10, 320 / 20) = 16 in five steps of a factor 20^(1/5) = 1.82.
    assert sub_sample_sizes(320, 6) == (16, 29, 53, 97, 176, 320)
    assert sub_sample_sizes(5, 6) == (2, 3, 4, 5)


def test_sub_samples_hold_no_item_twice() -> None:
    drawn = draw_sub_samples(30, 7, 50, np.random.default_rng(1))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert (drawn.sum(axis=1) == 7).all()
    assert (drawn.sum(axis=0) > 0).all()


def test_all_items_give_the_figure_itself_and_no_spread(converged: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    analysed = simulate(100).filter(pl.col("split") != "test")
    last = rows_of(converged[0], "krippendorff_alpha_nominal").row(-1, named=True)
    assert (last["n"], last["n_repeats"], last["sd"], last["ci_low"]) == (80, 1, None, None)
    assert last["mean"] == pytest.approx(krippendorff_alpha(analysed))
    distance = rows_of(converged[0], "label_distribution_distance")
    assert distance["mean"][-1] == pytest.approx(0.0, abs=1e-9)
    assert distance["mean"].is_sorted(descending=True)
    assert distance["fitted_mean"][-1] > 0.01  # from the distribution behind the corpus 80 items are still away


def test_subsets_of_annotators_are_all_there_are(converged: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    analysed = simulate(100).filter(pl.col("split") != "test")
    alpha = rows_of(converged[0], "krippendorff_alpha_nominal", "annotators")
    assert alpha.select("n", "n_repeats").rows() == [(2, 6), (3, 4), (4, 1)]
    threes = [krippendorff_alpha(analysed.filter(pl.col("annotator_id") != name)) for name in HABITS]
    assert alpha["mean"][1] == pytest.approx(np.mean(threes))
    assert alpha["sd"][1] == pytest.approx(np.std(threes))
    assert rows_of(converged[0], "label_distribution_distance", "annotators")["n"].to_list() == [1, 2, 3, 4]
    assert rows_of(converged[0], "attribution_accuracy", "annotators").is_empty()


def test_few_annotators_do_not_foretell_more_and_many_do(converged: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    few = rows_of(converged[1], "krippendorff_alpha_nominal", "annotators").row(0, named=True)
    assert (few["formula"], few["n_needed"]) == (None, None)
    assert "cannot be said" in few["advice"]
    _, fits = convergence_table(simulate(60, n_annotators=12), "nominal", QUICK, attribute=False)
    many = rows_of(fits, "krippendorff_alpha_nominal", "annotators").row(0, named=True)
    assert many["n_now"] == 12
    assert "annotators" in many["advice"]
    assert many["formula"].startswith("mean = ")


def test_attribution_rises_with_training_items_to_all_right(converged: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    rows = rows_of(converged[0], "attribution_accuracy")
    assert rows["n"][-1] == 60  # training items
    assert rows["n_repeats"].to_list() == [4, 4, 4, 4, 1]
    assert rows["mean"][-1] == pytest.approx(1.0)  # each annotator has a phrase of his own
    assert "attribution accuracy (groups of 2)" in rows_of(converged[1], "attribution_accuracy")["advice"].item()


def test_attribution_without_style_stays_at_chance() -> None:
    corpus = simulate(150)
    phrases = pl.Series("explanation", [f"the {NOUNS[i]} and the {NOUNS[j]}" for i, j in _pairs(corpus.height)])
    table, _ = convergence_table(corpus.with_columns(phrases), "nominal", QUICK)
    assert rows_of(table, "attribution_accuracy")["mean"].mean() == pytest.approx(0.25, abs=0.08)


def _pairs(n: int) -> list[list[int]]:
    return np.random.default_rng(5).integers(8, size=(n, 2)).tolist()


def test_attribution_that_cannot_be_measured_says_so() -> None:
    # 20 items leave 4 for validation: no group of 5.
    table, fits = convergence_table(simulate(20), "nominal", ConvergenceConfig(n_repeats=3))
    rows = rows_of(table, "attribution_accuracy")
    assert rows["mean"].null_count() == rows.height
    assert rows["n_repeats"].sum() == 0
    assert "cannot be said" in rows_of(fits, "attribution_accuracy")["advice"].item()


def test_test_items_are_never_read() -> None:
    corpus = simulate(60)
    test = pl.col("split") == "test"
    changed = corpus.with_columns(
        pl.when(test).then(pl.lit("x")).otherwise(pl.col("label")).alias("label"),
        pl.when(test).then(pl.lit("amy amy amy")).otherwise(pl.col("explanation")).alias("explanation"),
    )
    for before, after in zip(
        convergence_table(corpus, "nominal", QUICK), convergence_table(changed, "nominal", QUICK), strict=True
    ):
        assert before.equals(after)


def test_order_of_rows_does_not_matter() -> None:
    corpus = simulate(40)
    shuffled = corpus.sample(fraction=1.0, shuffle=True, seed=3)
    for one, other in zip(
        convergence_table(corpus, "nominal", QUICK), convergence_table(shuffled, "nominal", QUICK), strict=True
    ):
        assert one.equals(other)


def test_progress_is_told_of_every_classifier() -> None:
    told: list[tuple[int, int]] = []
    convergence_table(simulate(40), "nominal", QUICK, progress=lambda n_done, n_total: told.append((n_done, n_total)))
    assert told[-1][0] == told[-1][1] == len(told)


def test_too_small_corpora_are_refused() -> None:
    with pytest.raises(CorpusError, match=r"at least two annotators.*amy"):
        convergence_table(simulate(20).filter(pl.col("annotator_id") == "amy"), "nominal", QUICK)
    with pytest.raises(CorpusError, match=r"at least 3 items.*there are 2"):
        convergence_table(simulate(2), "nominal", QUICK)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_width_at_twice_the_items_is_foretold_within_a_quarter(seed: int) -> None:
    # 375 items, of which train and validation are 300. Fresh samples of 600 items have the true spread there.
    table, fits = convergence_table(simulate(375, seed=seed), "nominal", ConvergenceConfig(), attribute=False)
    alphas, distances = draw_fresh(600, 1000, np.random.default_rng(100 + seed))
    for quantity, drawn in (("krippendorff_alpha_nominal", alphas), ("label_distribution_distance", distances)):
        width = rows_of(table, quantity)["fitted_width"].to_list()
        sizes = rows_of(table, quantity)["n"].to_list()
        exponent = np.log(width[0] / width[-1]) / np.log(sizes[-1] / sizes[0])  # the fit is a straight line in log-log
        foretold = width[-1] * 2.0**-exponent
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert foretold == pytest.approx(high - low, rel=0.25)
    # The mean, too: the distance of 600 items from the distribution behind them lies on the fitted curve's course.
    fitted = rows_of(table, "label_distribution_distance")["fitted_mean"][-1]
    assert distances.mean() == pytest.approx(fitted / np.sqrt(2), rel=0.25)
    assert rows_of(fits, "krippendorff_alpha_nominal")["n_now"].item() == 300


def test_advised_number_of_items_reaches_the_width() -> None:
    config = ConvergenceConfig(interval_width=0.08)
    _, fits = convergence_table(simulate(375), "nominal", config, attribute=False)
    row = rows_of(fits, "krippendorff_alpha_nominal").row(0, named=True)
    assert row["width_now"] > 0.08
    more = row["n_needed"] - 300
    assert row["advice"].startswith("about ")
    assert int(row["advice"].split()[1]) == pytest.approx(more, rel=0.1)  # rounded up to two digits
    alphas, _ = draw_fresh(row["n_needed"], 1000, np.random.default_rng(7))
    low, high = np.quantile(alphas, [0.025, 0.975])
    assert high - low == pytest.approx(0.08, rel=0.25)


def test_width_on_real_corpora_is_near_the_bootstrap_interval() -> None:
    # Two independent ways to the same width: sub-samples extrapolated to all items, and the bootstrap over all items.
    corpus = paraphrase_corpus()
    _, fits = convergence_table(corpus, "ordinal", ConvergenceConfig(), attribute=False)
    fitted = rows_of(fits, "krippendorff_alpha_ordinal")["width_now"].item()
    low, high = (
        agreement_table(corpus.filter(pl.col("split") != "test"), "ordinal", seed=1)
        .filter(pl.col("metric") == "krippendorff_alpha_ordinal")
        .select("ci_low", "ci_high")
        .row(0)
    )
    assert fitted == pytest.approx(high - low, rel=0.15)


def test_sets_of_labels_are_followed_by_masi() -> None:
    corpus = simulate(60)
    second = corpus.filter((pl.col("annotator_id") == "amy") & (pl.col("label") == "x")).with_columns(label=pl.lit("y"))
    both = pl.concat([corpus, second])
    table, _ = convergence_table(both, "masi", QUICK, attribute=False)
    expected = krippendorff_alpha(both.filter(pl.col("split") != "test"), "masi")
    assert rows_of(table, "krippendorff_alpha_masi")["mean"][-1] == pytest.approx(expected)
