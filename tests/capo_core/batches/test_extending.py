"""A corpus and later batches: what replaces what, who is changed by it, and that no item ever changes its split."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from evaluation_material import NLI, ONE_LABEL
from hypothesis import given, settings
from hypothesis import strategies as st

from capo_core.batches.extending import ExtendedCorpus, add_counts, extend_corpus
from capo_core.corpora import BatchContent, read_batch, read_corpus
from capo_core.errors import CorpusError, InputFileError
from capo_core.splits import assign_splits, require_disjoint_splits
from capo_core.text import text_id
from schemas.config import SplitConfig

HEADER = ("item_id", "text_a", "text_b", "annotator_id", "label", "explanation")
SPLITS = SplitConfig(seed=3)
PEOPLE = ("ann", "bob", "cyd")

Row = Sequence[str]


def said(number: int, annotator: str, label: str = "neutral", explanation: str = "because") -> Row:
    return (f"i{number}", f"context {number}", f"statement {number}", annotator, label, explanation)


def write(path: Path, rows: Sequence[Row], header: Row = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
    return path


@pytest.fixture
def first(tmp_path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = [said(number, annotator) for number in range(20) for annotator in PEOPLE]
    annotations = read_corpus([write(tmp_path / "first.csv", rows)], "table", ONE_LABEL).annotations
    return annotations, assign_splits(annotations, SPLITS)


def batch(tmp_path: Path, rows: Sequence[Row], header: Row = HEADER) -> BatchContent:
    return read_batch(write(tmp_path / "batch.csv", rows, header), "table", ONE_LABEL)


def extend(first: tuple[pl.DataFrame, pl.DataFrame], content: BatchContent, version: int = 2) -> ExtendedCorpus:
    return extend_corpus(*first, content, SPLITS, version=version)


def of_split(corpus: pl.DataFrame, split: str) -> int:
    """Return the number of the first item of a split."""
    return min(int(source_id[1:]) for source_id in corpus.filter(split=split)["source_id"])


def test_new_items_keep_the_shares_and_move_nothing(first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    extended = extend(first, batch(tmp_path, [said(number, name) for number in range(20, 40) for name in PEOPLE]))

    after = dict(extended.corpus.select("item_id", "split").iter_rows())
    assert all(after[item_id] == split for item_id, split in first[1].select("item_id", "split").iter_rows())
    # 40 items at .6, .2, .2
    sizes = extended.corpus.group_by("split").agg(pl.col("item_id").n_unique())
    assert dict(sizes.iter_rows()) == {"train": 24, "validation": 8, "test": 8}
    assert extended.counts["rows_added"] == 60
    assert extended.counts["items_added"] == 20
    assert extended.changed == PEOPLE


def test_one_item_at_a_time_ends_at_the_same_shares(first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    versions = first
    for number in range(20, 40):
        extended = extend(versions, batch(tmp_path, [said(number, name) for name in PEOPLE]), version=number)
        versions = (extended.annotations, extended.corpus)
    sizes = versions[1].group_by("split").agg(pl.col("item_id").n_unique())
    assert dict(sizes.iter_rows()) == {"train": 24, "validation": 8, "test": 8}


def test_a_correction_replaces_what_the_annotator_said_of_the_item_and_changes_nobody_else(
    first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    extended = extend(first, batch(tmp_path, [said(4, "bob", "entailment", "I was wrong"), said(5, "bob")]))

    own = extended.corpus.filter(annotator_id="bob", source_id="i4")
    assert own.select("label", "explanation").rows() == [("entailment", "I was wrong")]
    assert extended.corpus.height == first[1].height
    assert extended.changed == ("bob",)
    counts = {name: n for name, n in extended.counts.items() if n}
    assert counts == {"rows_corrected": 1, "rows_superseded": 1, "rows_repeated": 1}


def test_with_several_labels_allowed_the_batch_is_the_annotators_whole_say(
    first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    path = write(tmp_path / "b.csv", [said(4, "bob", "neutral", "one"), said(4, "bob", "entailment", "two")])
    extended = extend(first, read_batch(path, "table", NLI))
    own = extended.corpus.filter(annotator_id="bob", source_id="i4").sort("label")
    assert own.select("label", "explanation").rows() == [("entailment", "two"), ("neutral", "one")]
    assert (extended.counts["rows_corrected"], extended.counts["rows_superseded"]) == (2, 1)


def test_a_new_annotator_on_old_items_changes_nobody_else(
    first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    extended = extend(first, batch(tmp_path, [said(number, "dov") for number in range(20)]))
    assert extended.changed == ("dov",)
    assert extended.counts["items_added"] == 0
    assert extended.corpus.filter(annotator_id="dov").height == 20


def test_what_was_said_before_is_no_news(first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    extended = extend(first, batch(tmp_path, [said(number, name) for number in range(20) for name in PEOPLE]))
    assert not extended.is_new
    assert extended.changed == ()
    assert extended.corpus.equals(first[1])
    assert extended.annotations.equals(first[0])


def test_a_withdrawal_takes_an_item_back_and_changes_whoever_learned_from_it(
    first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    number = of_split(first[1], "train")
    content = batch(tmp_path, [(f"i{number}", "ann", "yes")], ("item_id", "annotator_id", "withdrawn"))
    extended = extend(first, content)
    assert extended.corpus.filter(annotator_id="ann", source_id=f"i{number}").is_empty()
    assert extended.counts["rows_withdrawn"] == 1
    assert extended.changed == PEOPLE  # bob's and cyd's pairs held her words


def test_a_withdrawal_from_test_changes_its_author_alone(
    first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    number = of_split(first[1], "test")
    rows = [(f"context {number}", f"statement {number}", "ann", "1")]
    extended = extend(first, batch(tmp_path, rows, ("text_a", "text_b", "annotator_id", "withdrawn")))
    assert extended.changed == ("ann",)


def test_an_item_that_is_gone_altogether_changes_everybody(
    first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    number = of_split(first[1], "test")
    rows = [(f"i{number}", name, "yes") for name in PEOPLE]
    extended = extend(first, batch(tmp_path, rows, ("item_id", "annotator_id", "withdrawn")))
    assert extended.changed == PEOPLE
    assert extended.corpus["item_id"].n_unique() == 19


def test_naming_no_item_withdraws_the_person(first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    content = batch(
        tmp_path, [("ann", "yes"), ("eve", "yes"), ("bob", "perhaps"), ("", "yes")], ("annotator_id", "withdrawn")
    )
    extended = extend(first, content)
    assert set(extended.corpus["annotator_id"]) == {"bob", "cyd"}
    assert extended.is_new
    assert extended.changed == ("bob", "cyd")
    assert extended.refused.select("annotator_id", "reason").rows() == [("eve", "nothing_to_withdraw")]
    refused = content.quarantine.select("annotator_id", "reason").rows()
    assert sorted(refused) == [("", "missing_annotator"), ("bob", "unclear_withdrawal")]


def test_half_an_item_withdraws_nothing(tmp_path: Path) -> None:
    header = ("item_id", "text_a", "text_b", "annotator_id", "withdrawn")
    rows = [("", "context 1", "", "ann", "yes"), ("i1", "", "", "bob", "yes")]
    content = batch(tmp_path, rows, header)
    assert content.quarantine.select("annotator_id", "reason").rows() == [("ann", "missing_text")]
    assert content.withdrawals.select("annotator_id", "source_id").rows() == [("bob", "i1")]


def test_an_item_between_two_splits_is_refused_with_its_rows(
    first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    train, test = of_split(first[1], "train"), of_split(first[1], "test")
    between = ("x", f"context {train}", f"statement {test}", "ann", "neutral", "both")
    beside = ("y", f"context {test}", "another statement", "ann", "neutral", "one")
    extended = extend(first, batch(tmp_path, [between, beside]))
    assert extended.refused.select("source_id", "reason").rows() == [("x", "context_in_two_splits")]
    assert extended.corpus.filter(source_id="y")["split"].to_list() == ["test"]
    require_disjoint_splits(extended.corpus)


def test_a_chain_of_new_items_does_not_join_two_splits(
    first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    train, test = of_split(first[1], "train"), of_split(first[1], "test")
    links = [
        ("x", f"context {train}", "link", "ann", "neutral", "e"),
        ("y", "link", "chain", "ann", "neutral", "e"),
        ("z", "chain", f"context {test}", "ann", "neutral", "e"),
    ]
    extended = extend(first, batch(tmp_path, links))
    assert extended.refused.height == 1
    require_disjoint_splits(extended.corpus)


def test_items_that_were_not_sampled_come_in_with_a_batch_about_them(tmp_path: Path) -> None:
    rows = [said(number, annotator) for number in range(40) for annotator in PEOPLE]
    annotations = read_corpus([write(tmp_path / "first.csv", rows)], "table", ONE_LABEL).annotations
    corpus = assign_splits(annotations, SPLITS, 20)
    left_out = annotations.join(corpus, on="item_id", how="anti")["source_id"][0]
    extended = extend((annotations, corpus), batch(tmp_path, [said(int(left_out[1:]), "dov")]))
    assert extended.corpus["item_id"].n_unique() == 21
    assert set(extended.corpus.filter(source_id=left_out)["annotator_id"]) == {*PEOPLE, "dov"}


def test_known_items_keep_their_spelling(first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    row = ("other", " context  4", "statement 4 ", "dov", "neutral", "e")
    extended = extend(first, batch(tmp_path, [row]))
    texts = extended.corpus.filter(item_id=text_id("context 4", "statement 4")).select("text_a", "text_b").unique()
    assert texts.rows() == [("context 4", "statement 4")]
    assert extended.changed == ("dov",)


def test_a_split_that_would_be_empty_is_an_error(first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    numbers = sorted({int(s[1:]) for s in first[1].filter(split="test")["source_id"]})
    rows = [(f"i{number}", name, "yes") for number in numbers for name in PEOPLE]
    content = batch(tmp_path, rows, ("item_id", "annotator_id", "withdrawn"))
    with pytest.raises(CorpusError, match="no annotation is left in test; put new annotations into the same batch"):
        extend(first, content)


def test_counts_of_all_files_add_up(first: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    path = tmp_path / "first.csv"
    before = read_corpus([path], "table", ONE_LABEL).counts
    train, test = of_split(first[1], "train"), of_split(first[1], "test")
    header = (*HEADER, "withdrawn")
    rows = [
        (*said(30, "ann"), ""),
        (*said(31, "ann", "no such label"), ""),
        ("x", f"context {train}", f"statement {test}", "ann", "neutral", "both", "no"),
        ("i1", "", "", "bob", "", "", "yes"),
        ("", "", "", "eve", "", "", "yes"),
    ]
    content = batch(tmp_path, rows, header)
    counts = add_counts(before, content.counts, extend(first, content))
    assert counts["rows_in"] == 60 + 5
    # the label, the item between two splits, the withdrawal of somebody unknown
    assert counts["rows_quarantined"] == 3
    assert (counts["rows_accepted"], counts["withdrawals"]) == (61, 1)
    assert counts["quarantined_context_in_two_splits"] == counts["quarantined_nothing_to_withdraw"] == 1
    assert (counts["items"], counts["annotators"], counts["rows_withdrawn"]) == (21, 3, 1)


def test_a_table_without_withdrawals_needs_all_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "b.csv", [("i1", "ann")], ("item_id", "annotator_id"))
    with pytest.raises(InputFileError, match="missing column"):
        read_batch(path, "table", ONE_LABEL)
    path = write(tmp_path / "c.csv", [("", "yes")], ("annotator_id", "withdrawn"))
    with pytest.raises(CorpusError, match=r"none of 1 rows can be used .*missing_annotator"):
        read_batch(path, "table", ONE_LABEL)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(0, 15), st.sampled_from(PEOPLE)), min_size=1, max_size=12, unique=True
    )
)
def test_no_batch_puts_a_text_into_two_splits_or_loses_a_row(links: list[tuple[int, int, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows = [said(number, annotator) for number in range(12) for annotator in PEOPLE]
        annotations = read_corpus([write(Path(folder) / "first.csv", rows)], "table", ONE_LABEL).annotations
        corpus = assign_splits(annotations, SPLITS)
        content = batch(
            Path(folder), [("n", f"context {a}", f"statement {b}", who, "neutral", "new") for a, b, who in links]
        )
    extended = extend_corpus(annotations, corpus, content, SPLITS, version=2)
    require_disjoint_splits(extended.corpus)
    taken = sum(extended.counts[name] for name in ("rows_added", "rows_corrected", "rows_repeated"))
    assert taken + extended.refused.height == content.annotations.height
    assert extended.annotations.height == annotations.height + extended.counts["rows_added"]
