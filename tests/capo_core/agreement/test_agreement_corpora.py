"""Agreement on the real corpora, against independent implementations; needs CAPO_DATA_DIR."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from real_data import paraphrase_corpus, varierr_corpus
from sklearn.metrics import cohen_kappa_score

from capo_core.agreement import agreement_table, krippendorff_alpha
from capo_core.subjectivity import propose_subjectivity

SCORES = list(range(-5, 6))


@pytest.fixture(scope="module")
def paraphrase() -> pl.DataFrame:
    return paraphrase_corpus()


@pytest.fixture(scope="module")
def varierr() -> pl.DataFrame:
    return varierr_corpus()


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_of_paraphrase_equals_the_krippendorff_package(paraphrase: pl.DataFrame, level: str) -> None:
    krippendorff = pytest.importorskip("krippendorff", reason="the independent implementation")
    scores = paraphrase.with_columns(pl.col("label").cast(pl.Int64)).pivot(
        "item_id", index="annotator_id", values="label"
    )
    data = scores.drop("annotator_id").to_numpy().astype(float)
    assert data.shape == (4, 400)
    expected = krippendorff.alpha(reliability_data=data, level_of_measurement=level)
    assert krippendorff_alpha(paraphrase, level) == pytest.approx(expected, abs=1e-9)  # pyright: ignore[reportArgumentType]


def test_kappas_of_paraphrase_equal_scikit_learn(paraphrase: pl.DataFrame) -> None:
    table = agreement_table(paraphrase, "ordinal", n_bootstrap=100, seed=1)
    values = {(m, a, b): v for m, a, b, v in table.select(table.columns[:4]).iter_rows()}
    wide = paraphrase.with_columns(pl.col("label").cast(pl.Int64)).pivot(
        "annotator_id", index="item_id", values="label"
    )
    pairs = list(combinations(sorted(set(wide.columns) - {"item_id"}), 2))
    assert len(pairs) == 6
    for a, b in pairs:
        for metric, weights in (("cohen_kappa", None), ("cohen_kappa_quadratic", "quadratic")):
            expected = cohen_kappa_score(wide[a].to_numpy(), wide[b].to_numpy(), labels=SCORES, weights=weights)
            assert values[(metric, a, b)] == pytest.approx(expected, abs=1e-9)


def test_masi_alpha_of_varierr_equals_nltk(varierr: pl.DataFrame) -> None:
    agreement = pytest.importorskip("nltk.metrics.agreement", reason="the independent implementation")
    distance = pytest.importorskip("nltk.metrics.distance")
    sets = varierr.group_by("annotator_id", "item_id").agg(pl.col("label"))
    data = [(annotator, item, frozenset(labels)) for annotator, item, labels in sets.iter_rows()]
    assert any(len(labels) > 1 for _, _, labels in data)
    expected = agreement.AnnotationTask(data=data, distance=distance.masi_distance).alpha()
    assert krippendorff_alpha(varierr, "masi") == pytest.approx(expected, abs=1e-9)


def test_nominal_alpha_of_varierr_equals_the_krippendorff_package(varierr: pl.DataFrame) -> None:
    krippendorff = pytest.importorskip("krippendorff", reason="the independent implementation")
    codes = {"entailment": 0, "neutral": 1, "contradiction": 2}
    slots = (
        varierr.group_by("annotator_id", "item_id")
        .agg(pl.col("label").unique())
        .filter(pl.col("label").list.len() == 1)
    )
    wide = slots.with_columns(pl.col("label").list.first().replace_strict(codes)).pivot(
        "item_id", index="annotator_id", values="label"
    )
    data = wide.drop("annotator_id").cast(pl.Float64).fill_null(float("nan")).to_numpy()
    assert np.isnan(data).any()  # slots of several labels, and of none
    expected = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
    assert krippendorff_alpha(varierr, "nominal") == pytest.approx(expected, abs=1e-9)


def test_figures_of_both_corpora_are_those_stated(paraphrase: pl.DataFrame, varierr: pl.DataFrame) -> None:
    # 400 items of four scores from -5 to 5; 391 items, 62 slots of which carry two labels.
    assert [krippendorff_alpha(paraphrase, level) for level in ("nominal", "ordinal", "interval")] == pytest.approx(
        [0.1545, 0.5185, 0.4790], abs=1e-4
    )
    assert [krippendorff_alpha(varierr, level) for level in ("nominal", "masi")] == pytest.approx(
        [0.3457, 0.3231], abs=1e-4
    )


def test_paraphrase_is_proposed_as_projective_and_nli_as_pattern(
    paraphrase: pl.DataFrame, varierr: pl.DataFrame
) -> None:
    # Paraphrase annotators use the scale each in a way of their own; NLI annotators disagree on items only.
    scale = agreement_table(paraphrase, "ordinal", n_bootstrap=200, seed=1)
    assert propose_subjectivity(scale, "ordinal")["proposed"].item() == "latent_projective"
    labels = agreement_table(varierr, "nominal", multiple_labels=True, n_bootstrap=200, seed=1)
    assert propose_subjectivity(labels, "nominal")["proposed"].item() == "latent_pattern"
