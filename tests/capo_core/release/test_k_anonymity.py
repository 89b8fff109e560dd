"""k-anonymity of annotators' metadata: k by hand, refusals, and that nothing unpublished refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl
import pytest

from capo_core.errors import ReleaseError
from capo_core.release.k_anonymity import check_privacy, describe_k_anonymity, find_columns, tabulate_annotators
from schemas.release import ReleaseConfig


def corpus(people: Sequence[tuple[str, str]], **more: object) -> pl.DataFrame:
    """Return two annotations of each person of an age and a city."""
    rows = [
        {"annotator_id": f"p{number:02d}", "metadata": json.dumps({"age": age, "city": city, "genre": genre, **more})}
        for number, (age, city) in enumerate(people)
        for genre in ("news", "fiction")
    ]
    return pl.DataFrame(rows)


# 12 people: 6 young, 6 old; in Ulm 4 young and 5 old, in Bern 2 young and 1 old
PEOPLE = [("young", "Ulm")] * 4 + [("young", "Bern")] * 2 + [("old", "Ulm")] * 5 + [("old", "Bern")]


def test_k_is_the_rarest_combination_of_every_set_of_columns() -> None:
    check = check_privacy(corpus(PEOPLE), ["age", "city"])
    found = {row["columns"]: (row["n_combinations"], row["k"], row["n_below"]) for row in check.released.to_dicts()}
    assert found == {
        "age": (2, 6, 0),
        "city": (2, 3, 3),  # 9 in Ulm, 3 in Bern
        "age, city": (4, 1, 7),  # 4 + 2 + 1 are in groups below 5
    }
    assert (check.k, check.n_annotators) == (1, 12)
    assert "shared by k = 1 at least" in describe_k_anonymity(check)


@pytest.mark.parametrize(
    ("sizes", "audience", "forced", "says"),
    [
        ((4, 20), "public", None, "k = 4: 4 annotators in the release share a combination of age; below 5 nothing is"),
        ((4, 20), "restricted", "because", "below 5 nothing is released, not by force"),
        ((5, 20), "public", None, "k = 5: .*below 11 nothing is released to the public.*--force"),
        ((10, 20), "public", None, "k = 10: .*below 11"),
        ((5, 20), "public", "the board agreed", None),
        ((5, 20), "restricted", None, None),
        ((11, 20), "public", None, None),
    ],
)
def test_below_five_nothing_leaves_and_below_eleven_not_to_the_public(
    sizes: tuple[int, int], audience: str, forced: str | None, says: str | None
) -> None:
    people = [("young", "Ulm")] * sizes[0] + [("old", "Ulm")] * sizes[1]
    release = ReleaseConfig.model_validate({"audience": audience, "annotator_columns": ["age"]})
    obstacle = check_privacy(corpus(people), release.annotator_columns).find_obstacle(release, forced)
    if says is None:
        assert obstacle is None
    else:
        with pytest.raises(ReleaseError, match=says):
            raise ReleaseError(obstacle)


def test_what_is_not_published_is_shown_and_refuses_nothing() -> None:
    check = check_privacy(corpus(PEOPLE, consent="release"), [])
    assert check.k is None
    assert check.find_obstacle(ReleaseConfig(), None) is None
    assert dict(check.withheld.select("columns", "k").iter_rows()) == {"age": 6, "city": 3}
    assert "No metadata of the annotators are published" in describe_k_anonymity(check)


def test_columns_are_those_of_the_annotator_and_not_of_single_rows() -> None:
    frame = corpus(PEOPLE[:2], annotator={"Education": "MA", "consent": ["release"]}, judgments=[{"annotator": "x"}])
    assert find_columns(frame) == ["Education", "age", "city"]
    assert tabulate_annotators(frame, ["Education", "age"]).rows() == [("p00", "MA", "young"), ("p01", "MA", "young")]
    with pytest.raises(ReleaseError, match="'genre' has 2 values in the rows of p00"):
        check_privacy(frame, ["genre"])
    with pytest.raises(ReleaseError, match="nothing is known as 'shoe_size'; columns are Education, age, city"):
        check_privacy(frame, ["shoe_size"])


def test_who_has_no_value_shares_that_with_the_others_who_have_none() -> None:
    frame = corpus([("young", "Ulm")] * 5 + [("", "Ulm")] * 2)
    assert check_privacy(frame, ["age"]).released.select("n_combinations", "k").row(0) == (2, 2)
