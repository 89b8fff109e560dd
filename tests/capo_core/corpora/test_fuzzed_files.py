"""Mutants of annotation files: each is read or refused within its time and memory, and no row is lost."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from annotation_files import (
    annotators_meta,
    csv_table,
    example_rows,
    json_lines,
    lewidi_records,
    varierr_records,
)
from limited_reading import read_within_limits
from mutants import make_mutant
from rounds import n_rounds
from row_counts import count_rows
from validation_material import make_rows, make_set

pytestmark = pytest.mark.torture


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pl.DataFrame(rows).write_parquet(sink)
    return sink.getvalue()


def _ratings() -> list[dict[str, Any]]:
    return make_rows(*make_set(), "r1")


def _changes() -> list[dict[str, str]]:
    """Annotations, and some taken back."""
    return [row | {"withdrawn": "yes" if n % 5 == 0 else ""} for n, row in enumerate(example_rows())]


FILES = {
    "varierr": ("varierr", "varierr", ".json", lambda: json_lines(varierr_records())),
    "lewidi": ("lewidi", "lewidi", ".json", lambda: json.dumps(lewidi_records()).encode()),
    "csv": ("table", "csv", ".csv", lambda: csv_table(example_rows())),
    "jsonl": ("table", "jsonl", ".jsonl", lambda: json_lines(example_rows())),
    "parquet": ("table", "parquet", ".parquet", lambda: _parquet(example_rows())),
    "batch-csv": ("batch", "csv", ".csv", lambda: csv_table(_changes())),
    "batch-parquet": ("batch", "parquet", ".parquet", lambda: _parquet(_changes())),
    "items": ("items", "csv", ".csv", lambda: csv_table([dict(list(row.items())[:3]) for row in example_rows()[::4]])),
    "meta": ("meta", "meta", ".json", lambda: json.dumps(annotators_meta()).encode()),
    "ratings-csv": ("ratings", "csv", ".csv", lambda: csv_table(_ratings())),
    "ratings-jsonl": ("ratings", "jsonl", ".jsonl", lambda: json_lines(_ratings())),
}
"""By name: what reads the file, how it is mutated, its suffix, its content."""

N_MUTANTS = {name: 2500 if reader in ("varierr", "lewidi", "table") else 500 for name, (reader, *_) in FILES.items()}


def _say_rows_in(told: dict[str, Any]) -> int:
    return told["rows_accepted"] + told["rows_quarantined"] + told.get("withdrawals", 0)


@pytest.mark.parametrize("name", FILES)
def test_every_mutant_is_read_or_refused_by_name_and_no_row_is_lost(name: str, tmp_path: Path) -> None:
    reader, form, suffix, make = FILES[name]
    original = make()
    paths = [tmp_path / f"{number}{suffix}" for number in range(n_rounds(N_MUTANTS[name]))]
    for number, path in enumerate(paths):
        path.write_bytes(make_mutant(form, original, number))
    told = read_within_limits(reader, paths)
    assert [one for one in told if one["outcome"] not in ("read", "refused")] == []
    unnamed = [one for one in told if one["outcome"] == "refused" and Path(one["path"]).name not in one["says"]]
    assert unnamed == []
    assert {"read", "refused"} == {one["outcome"] for one in told}
    if reader not in ("varierr", "lewidi", "table", "batch"):
        return
    n_compared = 0
    for one in told:
        if one["outcome"] != "read":
            continue
        assert one["rows_in"] == _say_rows_in(one), one
        if one.get("reasons", {}).keys() & {"duplicate_key"} or (
            form == "csv" and "malformed_row" in one.get("reasons", {})
        ):
            continue
        counted = count_rows(form, Path(one["path"]).read_bytes())
        if counted is not None:
            n_compared += 1
            assert one["rows_in"] == counted, one
    print(f"{name}: {len(told)} mutants, {n_compared} counted independently")
    assert n_compared > len(told) / 20
