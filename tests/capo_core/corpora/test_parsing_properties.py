"""What holds for whatever JSON, tables and texts there are: nothing is lost, changed or read twice."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_material import NLI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capo_core.corpora import read_corpus
from capo_core.corpora.records import RepeatedKeys, parse_json
from capo_core.quality import to_json
from capo_core.spreadsheet import neutralise_cell, restore_cell
from capo_core.text import identity_form, text_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(-1e300, 1e300) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(JSON)
def test_json_without_doubled_keys_is_read_as_it_stands(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@QUICK
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=6))
def test_no_pair_of_an_object_is_lost_where_keys_stand_twice(pairs: list[tuple[str, int]]) -> None:
    text = "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"
    found = parse_json(text)
    assert list(found if isinstance(found, RepeatedKeys) else found.items()) == pairs
    assert isinstance(found, RepeatedKeys) == (len(dict(pairs)) < len(pairs))


def _refuse(name: str) -> None:
    raise AssertionError(name)


@QUICK
@given(st.text(max_size=60))
def test_a_text_is_json_or_refused_with_the_standard_error(text: str) -> None:
    try:
        parse_json(text)
    except ValueError:
        with pytest.raises((ValueError, AssertionError)):
            json.loads(text, parse_constant=_refuse)


@QUICK
@given(JSON)
def test_what_quarantine_keeps_is_json_and_storable(value: Any) -> None:
    assert json.loads(to_json(value).encode("utf-8")) == json.loads(json.dumps(value)) or "\\ud" in json.dumps(value)


@QUICK
@given(st.text(), st.text())
def test_neutralised_cells_are_no_formulas_come_back_and_stay_apart(one: str, other: str) -> None:
    cell = neutralise_cell(one)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    assert restore_cell(cell) == one
    assert (cell == neutralise_cell(other)) == (one == other)


@QUICK
@given(TEXT, TEXT)
def test_an_item_is_its_texts_whatever_their_white_space(one: str, other: str) -> None:
    assert text_id(one, other) == text_id(f" {one}\n", other.replace(" ", "  "))
    assert identity_form(identity_form(one)) == identity_form(one)


@QUICK
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT, st.sampled_from(["neutral", "Neutral ", "maybe", ""]), TEXT)))
def test_every_row_of_a_table_is_accepted_or_quarantined(tmp_path: Path, rows: list[tuple[str, ...]]) -> None:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, quoting=csv.QUOTE_ALL)
    writer.writerow(["item_id", "text_a", "text_b", "annotator_id", "label", "explanation"])
    writer.writerow(["0", "a", "b", "somebody", "neutral", "one that is sound"])
    writer.writerows(["1", *row] for row in rows)
    path = tmp_path / "t.csv"
    path.write_bytes(sink.getvalue().encode())
    result = read_corpus([path], "table", NLI)
    assert result.annotations.height + result.quarantine.height == len(rows) + 1 == result.counts["rows_in"]
    kept = {row[4] for row in rows} | {"one that is sound"}
    assert set(result.annotations["explanation"]) <= kept
