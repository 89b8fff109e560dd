"""Tables with one annotation per row: CSV, JSON Lines, Parquet."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from evaluation_material import ONE_LABEL, SCORES

from capo_core.corpora import read_corpus
from capo_core.errors import InputFileError

HEADER = "item_id,text_a,text_b,annotator_id,label,explanation,genre\n"
ROWS = [
    {
        "item_id": item,
        "text_a": f"Context {item}.",
        "text_b": "Statement, with comma.",
        "annotator_id": who,
        "label": "neutral",
        "explanation": f"{who} says\nso.",
        "genre": "news",
    }
    for item in (1, 2)
    for who in ("ada", "ben")
]


def write_csv(path: Path, body: str, header: str = HEADER) -> Path:
    path.write_bytes((header + body).encode("utf-8", "surrogateescape"))
    return path


def write_table(path: Path) -> Path:
    frame = pl.DataFrame(ROWS)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_three_forms_give_the_same_annotations(tmp_path: Path, suffix: str) -> None:
    result = read_corpus([write_table(tmp_path / f"t{suffix}")], "table", ONE_LABEL)

    assert result.counts["rows_accepted"] == 4
    rows = result.annotations.select("annotator_id", "label", "explanation", "source_id", "metadata").rows()
    assert sorted(rows) == sorted(
        (who, "neutral", f"{who} says\nso.", item, '{"genre": "news"}') for item in ("1", "2") for who in ("ada", "ben")
    )


def test_csv_rows_know_the_line_they_begin_on(tmp_path: Path) -> None:
    body = '1,a,b,ada,neutral,"two\nlines",x\n\n2,c,d,ada,neutral,one,x\r\n3,e,f,ada,maybe,one,x\n'
    result = read_corpus([write_csv(tmp_path / "t.csv", body)], "table", ONE_LABEL)

    # Line 1 is the header, the first row fills lines 2 and 3, line 4 is blank.
    assert sorted(result.annotations["source_line"]) == [2, 5]
    assert result.quarantine.select("source_line", "reason").rows() == [(6, "unknown_label")]


def test_ragged_and_badly_quoted_rows_are_quarantined_with_their_text(tmp_path: Path) -> None:
    body = (
        '1,a,b,ada,neutral,good,x\n2,a,b,ada,neutral,too, many,x\n3,"a"b,c,ada,neutral,q,x\n4,c,d,ada,neutral,good,x\n'
    )
    result = read_corpus([write_csv(tmp_path / "t.csv", body)], "table", ONE_LABEL)

    assert result.quarantine.select("source_line", "reason").rows() == [(3, "malformed_row"), (4, "malformed_row")]
    assert "has 8 fields, the header 7" in result.quarantine["detail"][0]
    assert json.loads(result.quarantine["record"][1]) == {"line": '3,"a"b,c,ada,neutral,q,x\n'}
    assert sorted(result.annotations["source_id"]) == ["1", "4"]


def test_quote_that_never_closes_loses_nothing_and_says_where_it_opened(tmp_path: Path) -> None:
    body = '1,a,b,ada,neutral,good,x\n2,a,"b,ada,neutral,e,x\n3,a,b,ada,neutral,e,x\n'
    result = read_corpus([write_csv(tmp_path / "t.csv", body)], "table", ONE_LABEL)

    assert result.quarantine.select("source_line", "reason").rows() == [(3, "malformed_row")]
    assert "lines 3 to 4" in result.quarantine["detail"][0]
    assert "3,a,b,ada" in json.loads(result.quarantine["record"][0])["line"]


def test_row_with_a_byte_that_is_not_utf8_is_quarantined_alone(tmp_path: Path) -> None:
    body = "1,a,b,ada,neutral,good,x\n2,a,b,ada,neutral,good,caf\udce9\n"  # byte 0xe9, Latin-1 é
    result = read_corpus([write_csv(tmp_path / "t.csv", body)], "table", ONE_LABEL)

    assert result.quarantine.select("source_line", "field", "reason").rows() == [(3, "genre", "not_utf8")]
    assert result.counts["rows_accepted"] == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("9,,b,ada,neutral,e,x", "missing_text"),
        ("9,a,b,,neutral,e,x", "missing_annotator"),
        ("9,a,b,ada,,e,x", "missing_label"),
        ("9,a,b,ada,maybe,e,x", "unknown_label"),
        ("9,a,b,ada,neutral, ,x", "empty_explanation"),
        ("1,c,d,ada,neutral,again,x", "duplicate_annotation"),
        ("1,c,d,ada,entailment,other,x", "second_label"),
    ],
)
def test_bad_row_is_quarantined_with_file_line_and_record(tmp_path: Path, row: str, reason: str) -> None:
    result = read_corpus([write_csv(tmp_path / "t.csv", f"1,c,d,ada,neutral,good,x\n{row}\n")], "table", ONE_LABEL)

    refused = result.quarantine.row(0, named=True)
    assert (refused["source_file"], refused["source_line"], refused["reason"]) == ("t.csv", 3, reason)
    assert list(json.loads(refused["record"]).values()) == [
        json.loads(refused["record"])[name] for name in sorted(HEADER.strip().split(","))
    ]
    assert result.counts[f"quarantined_{reason}"] == 1
    assert result.counts["rows_in"] == 2


@pytest.mark.parametrize("label", ["-6", "6", "2.5", "high"])
def test_bad_score_is_quarantined(tmp_path: Path, label: str) -> None:
    body = f"1,c,d,ada,+3,good,x\n1,c,d,ben,{label},bad,x\n"
    result = read_corpus([write_csv(tmp_path / "t.csv", body)], "table", SCORES)

    expected = "score_out_of_bounds" if label in ("-6", "6") else "score_not_integer"
    assert result.quarantine["reason"].to_list() == [expected]
    assert result.annotations["label"].to_list() == ["3"]


def test_missing_columns_are_an_error_that_names_found_and_missing(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", "1,a,b,x,neutral\n", "id,text_a,text_b,annotator_id,label\n")
    with pytest.raises(InputFileError, match=r"missing column\(s\) item_id, explanation; found 'id', 'text_a'"):
        read_corpus([path], "table", ONE_LABEL)
    (tmp_path / "t.jsonl").write_text('{"text_a": "a", "label": "neutral"}\n')
    with pytest.raises(InputFileError, match=r"t\.jsonl: missing column\(s\) item_id, text_b, annotator_id"):
        read_corpus([tmp_path / "t.jsonl"], "table", ONE_LABEL)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputFileError, match=r"t\.parquet: missing column\(s\) item_id"):
        read_corpus([tmp_path / "t.parquet"], "table", ONE_LABEL)


def test_semicolons_and_repeated_columns_are_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="columns must be separated by commas"):
        read_corpus([write_csv(tmp_path / "t.csv", "", HEADER.replace(",", ";"))], "table", ONE_LABEL)
    with pytest.raises(InputFileError, match="'label' stand twice"):
        read_corpus([write_csv(tmp_path / "u.csv", "", HEADER.replace("genre", "label"))], "table", ONE_LABEL)


def test_unknown_suffix_and_broken_parquet_are_errors(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(InputFileError, match=r"suffix '\.xlsx' is none of \.csv, \.jsonl"):
        read_corpus([tmp_path / "t.xlsx"], "table", ONE_LABEL)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(InputFileError, match="not a readable Parquet file"):
        read_corpus([tmp_path / "t.parquet"], "table", ONE_LABEL)


def test_json_lines_row_lacking_a_key_is_a_missing_value(tmp_path: Path) -> None:
    rows = [dict(ROWS[0]), {key: value for key, value in ROWS[1].items() if key != "label"}]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\nnot json\n")

    result = read_corpus([tmp_path / "t.jsonl"], "table", ONE_LABEL)

    assert result.quarantine.select("source_line", "reason").rows() == [(2, "missing_label"), (3, "invalid_json")]


def test_parquet_numbers_and_gaps_are_read_as_scores(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS).with_columns(pl.Series("label", [1.0, -3.0, None, 2.5]), when=pl.date(2024, 5, 6))
    frame.write_parquet(tmp_path / "t.parquet")

    result = read_corpus([tmp_path / "t.parquet"], "table", SCORES)

    assert sorted(result.annotations["label"]) == ["-3", "1"]
    assert result.quarantine.select("source_line", "reason").rows() == [(3, "missing_label"), (4, "score_not_integer")]
    assert json.loads(result.annotations["metadata"][0]) == {"genre": "news", "when": "2024-05-06"}


def test_item_ids_are_only_traced_so_blank_ones_are_counted_not_refused(tmp_path: Path) -> None:
    body = ",a,b,ada,neutral,e,x\n7,c,d,ada,neutral,e,x\n7,e,f,ada,neutral,e,x\n"
    result = read_corpus([write_csv(tmp_path / "t.csv", body)], "table", ONE_LABEL)

    assert result.counts["blank_source_ids"] == 1
    assert result.counts["source_ids_standing_for_distinct_texts"] == 1  # 7
    assert result.counts["items"] == 3


def test_own_annotator_column_clashes_with_annotator_metadata(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "1,a,b,ada,neutral,e,x\n", HEADER.replace("genre", "annotator"))
    (tmp_path / "meta.json").write_text('{"ada": {}}')
    with pytest.raises(InputFileError, match="column 'annotator' of its own"):
        read_corpus([table], "table", ONE_LABEL, tmp_path / "meta.json")
