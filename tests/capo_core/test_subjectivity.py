"""The proposed class of a task: each figure's vote, the median, the printed rule, the override."""

from __future__ import annotations

import polars as pl
import pytest

from capo_core.agreement import agreement_table
from capo_core.errors import CorpusError
from capo_core.subjectivity import propose_subjectivity
from schemas.frames import AGREEMENT, SUBJECTIVITY


def figures(
    alpha: tuple[float | None, float | None, float | None],
    entropy: float | None,
    jsd: float | None,
    floor: float = 0.002,
) -> pl.DataFrame:
    """Return an agreement table with the figures that vote, and a pair's figures that do not."""
    rows = [
        ("krippendorff_alpha_nominal", None, None, *alpha, 50, 200),
        ("label_entropy_normalised", None, None, entropy, None, None, 50, 200),
        ("label_jsd", None, None, jsd, None, None, 50, 200),
        ("label_jsd_shuffled", None, None, None if jsd is None else floor, None, None, 50, 200),
        ("label_jsd", "a", "b", 0.9, None, None, 50, 200),
    ]
    return pl.DataFrame(rows, schema=AGREEMENT, orient="row")


HIGH, MIDDLE, LOW = (0.9, 0.85, 0.95), (0.5, 0.45, 0.55), (0.2, 0.1, 0.3)


@pytest.mark.parametrize(
    ("alpha", "entropy", "jsd", "expected"),
    [
        (HIGH, 0.05, 0.004, "manifest"),
        (HIGH, 0.30, 0.004, "manifest"),  # two of three
        (HIGH, 0.30, 0.030, "latent_pattern"),
        (MIDDLE, 0.30, 0.004, "latent_pattern"),
        (LOW, 0.05, 0.030, "latent_pattern"),  # one vote each: the middle
        (MIDDLE, 0.60, 0.200, "latent_projective"),
        (LOW, 0.60, 0.004, "latent_projective"),
    ],
)
def test_median_vote_is_proposed(alpha: tuple, entropy: float, jsd: float, expected: str) -> None:
    table = propose_subjectivity(figures(alpha, entropy, jsd), "nominal")
    assert table.schema == pl.Schema(SUBJECTIVITY)
    assert table.select("subjectivity", "proposed").row(0) == (expected, expected)


def test_wide_interval_keeps_alpha_from_either_extreme() -> None:
    # α = .80, but as low as .60; α = .30, but as high as .45: both only support the middle.
    assert propose_subjectivity(figures((0.8, 0.6, 0.9), 0.05, 0.03), "nominal")["proposed"].item() == "latent_pattern"
    assert propose_subjectivity(figures((0.3, 0.2, 0.45), 0.6, 0.03), "nominal")["proposed"].item() == "latent_pattern"


def test_divergence_counts_above_its_floor() -> None:
    # .06 bits are far for people, but not where shuffled annotators are .05 apart.
    table = propose_subjectivity(figures(MIDDLE, 0.6, 0.06, floor=0.05), "nominal")
    assert table["proposed"].item() == "latent_pattern"


def test_rule_states_thresholds_figures_and_votes() -> None:
    rule = propose_subjectivity(figures(MIDDLE, 0.604, 0.204), "nominal")["rule"].item()
    for part in (
        "0.667",
        "0.40",
        "α (nominal) is 0.500 [0.450, 0.550] on 50 items: latent pattern",
        "0.604: latent proj",
    ):
        assert part in rule
    assert "divergence is 0.204 bits (floor 0.002): latent projective; proposed: latent projective" in rule


def test_override_counts_and_is_stated_beside_the_proposal() -> None:
    table = propose_subjectivity(figures(HIGH, 0.05, 0.004), "nominal", "latent_projective")
    assert table.select("subjectivity", "proposed").row(0) == ("latent_projective", "manifest")
    assert table["rule"].item().endswith("says latent projective, which takes the place of the proposal.")
    agreeing = propose_subjectivity(figures(HIGH, 0.05, 0.004), "nominal", "manifest")["rule"].item()
    assert agreeing.endswith("says manifest, which agrees.")


def test_nothing_is_proposed_without_figures() -> None:
    table = propose_subjectivity(figures((None, None, None), None, None), "nominal")
    assert table.select("subjectivity", "proposed").row(0) == (None, None)
    assert "no figure is defined" in table["rule"].item()


def test_undefined_alpha_does_not_vote() -> None:
    # The other two disagree: the one further from manifest is proposed.
    table = propose_subjectivity(figures((None, None, None), 0.05, 0.03), "nominal")
    assert table["proposed"].item() == "latent_pattern"


def test_table_without_alpha_at_the_level_is_an_error() -> None:
    with pytest.raises(CorpusError, match="no krippendorff_alpha_ordinal"):
        propose_subjectivity(figures(HIGH, 0.05, 0.004), "ordinal")


def test_agreement_table_has_what_the_rule_needs() -> None:
    rows = [(f"i{i}", a, "xy"[i % 2]) for i in range(30) for a in "abc"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("item_id", "annotator_id", "label"), pl.String), orient="row")
    table = propose_subjectivity(agreement_table(frame, "nominal", n_bootstrap=100, seed=1), "nominal")
    assert table["proposed"].item() == "manifest"  # all agree on every item
    assert table["rule"].item().count("manifest;") == 3
