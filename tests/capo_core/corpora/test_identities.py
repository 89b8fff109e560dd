"""Ids of annotators, wherever they stand in raw rows of the three formats, and rows of erased people."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from evaluation_material import NLI

from capo_core.corpora import IngestResult, find_annotators, read_batch, read_corpus
from capo_core.corpora.identities import Naming
from capo_core.errors import CorpusError, InputFileError
from capo_core.pseudonyms import name_pseudonym

KEY = bytes(range(32))
NAMING = Naming("c", KEY)
HEADER = "item_id,text_a,text_b,annotator_id,label,explanation"


def pseudonym(annotator: str) -> str:
    return name_pseudonym(annotator, "c", KEY)


def erasing(*annotators: str, keeps_ids: bool = False) -> Naming:
    return Naming("c", KEY, keeps_ids, frozenset(map(pseudonym, annotators)))


def table(path: Path, *rows: str, more: str = "") -> Path:
    path.write_text("\n".join([HEADER + more, *rows]) + "\n", encoding="utf-8")
    return path


def everything(result: IngestResult) -> str:
    """Return all that is kept of raw files as one text."""
    return result.annotations.write_json() + result.quarantine.write_json() + json.dumps(result.counts)


def lewidi(path: Path, annotations: dict[str, str], explanations: list[str], **more: object) -> dict[str, object]:
    return {
        "text": {"context": f"Context of {path.name}.", "statement": "It follows."},
        "annotators": ",".join(annotations),
        "annotations": annotations,
        "other_info": {"explanations": explanations},
        **more,
    }


def test_a_table_names_people_by_pseudonyms_in_every_column(tmp_path: Path) -> None:
    path = table(
        tmp_path / "t.csv",
        "1-Alice,Rain.,Wet.,Alice Weiss,neutral,fine,Alice Weiss was here,alice weiss; Bob,7",
        "2,Sun.,Dry.,Bob,neutral,fine,,,Bob",
        "3,Snow.,Cold.,7,neutral,fine,7 years,,",
        more=",note,reviewed_by,annotator",
    )
    result = read_corpus([path], "table", NLI, naming=NAMING)
    kept = everything(result)
    assert not any(name in kept for name in ("Weiss", "weiss", "Bob"))
    assert set(result.annotations["annotator_id"]) == {pseudonym("Alice Weiss"), pseudonym("Bob"), pseudonym("7")}
    by_item = {row["source_id"]: json.loads(row["metadata"]) for row in result.annotations.to_dicts()}
    alice, bob = pseudonym("Alice Weiss"), pseudonym("Bob")
    assert by_item["1-Alice"] == {  # "Alice" alone is nobody's id
        "note": f"{alice} was here", "reviewed_by": f"{alice}; {bob}", "annotator": pseudonym("7"),
    }  # fmt: skip
    assert by_item["3"]["note"] == "7 years", "a short id may be anything"


def test_quarantine_and_its_sentences_name_pseudonyms(tmp_path: Path) -> None:
    path = table(
        tmp_path / "t.csv",
        "1,Rain.,Wet.,Alice,neutral,fine",
        "1,Rain.,Wet.,Alice,neutral,again",
        "2,Rain.,Wet.,Alice,perhaps,so says Alice",
        "2,ragged,Alice",
        '3,"broken" quote,Alice,neutral,x,y',
    )
    result = read_corpus([path], "table", NLI, naming=NAMING)
    assert result.quarantine["reason"].to_list() == [
        "duplicate_annotation", "unknown_label", "malformed_row", "malformed_row",
    ]  # fmt: skip
    assert "Alice" not in everything(result)
    assert pseudonym("Alice") in result.quarantine["detail"][0]
    assert json.loads(result.quarantine["record"][1])["explanation"] == f"so says {pseudonym('Alice')}"
    assert result.counts["explanations_naming_an_annotator"] == 1
    for record in result.quarantine["record"].to_list()[2:]:
        assert json.loads(record) == {"withheld": "it cannot be told whose it is; see t.csv itself"}


@pytest.mark.parametrize("annotator", [["Alice"], {"Alice": 1}, {"name": "Alice"}])
def test_an_id_that_is_no_text_is_not_told_either(tmp_path: Path, annotator: object) -> None:
    row = {"item_id": "1", "text_a": "Rain.", "text_b": "Wet.", "label": "neutral", "explanation": "x"}
    path = tmp_path / "t.jsonl"
    lines = [row | {"annotator_id": annotator}, row | {"annotator_id": "Bob"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = read_corpus([path], "table", NLI, naming=NAMING)
    assert result.quarantine["reason"].to_list() == ["malformed_row"]
    assert "Alice" not in everything(result)


def test_lewidi_names_people_by_pseudonyms_in_lists_and_keys(tmp_path: Path) -> None:
    path, about = tmp_path / "l.json", tmp_path / "about.json"
    good = lewidi(path, {"Alice": "neutral", "Bob": "entailment"}, ["because", "since"])
    bad = lewidi(path, {"Alice": "neutral", "Carol": "entailment"}, ["only one"])
    path.write_text(json.dumps({"1": good, "2": bad}), encoding="utf-8")
    about.write_text(json.dumps({"Alice": {"Age": 30, "Nickname": "Alice"}, "Bob": {"Age": 31}}), encoding="utf-8")
    result = read_corpus([path], "lewidi", NLI, about, naming=NAMING)
    kept = everything(result)
    assert not any(name in kept for name in ("Alice", "Bob", "Carol"))
    metadata = json.loads(result.annotations.filter(annotator_id=pseudonym("Alice"))["metadata"][0])
    assert metadata["annotators"] == f"{pseudonym('Alice')},{pseudonym('Bob')}"
    assert metadata["annotator"] == {"Age": 30, "Nickname": pseudonym("Alice")}


def test_errors_about_a_file_of_annotators_name_nobody(tmp_path: Path) -> None:
    path, about = tmp_path / "l.json", tmp_path / "about.json"
    path.write_text(json.dumps({"1": lewidi(path, {"Alice": "neutral"}, ["x"])}), encoding="utf-8")
    for content in ('{"Alice": []}', '{"Alice": {}, "Alice": {}}'):
        about.write_text(content, encoding="utf-8")
        with pytest.raises(InputFileError) as caught:
            read_corpus([path], "lewidi", NLI, about, naming=NAMING)
        assert "Alice" not in str(caught.value)


def test_varierr_judges_are_named_as_annotators_are(tmp_path: Path) -> None:
    judgements = [{"annotator": 0, "makes_sense": True}, {"annotator": 1, "makes_sense": False}]
    entries = [{"annotator": n, "reason": "so", "judgments": judgements} for n in (0, 1)]
    record = {"id": "1", "context": "Rain.", "statement": "Wet.", "neutral": entries, "idk": [1]}
    path = tmp_path / "v.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    result = read_corpus([path], "varierr", NLI, naming=NAMING)
    first, second = pseudonym("Ann1"), pseudonym("Ann2")
    assert set(result.annotations["annotator_id"]) == {first, second}
    metadata = json.loads(result.annotations["metadata"][0])
    assert [one["annotator"] for one in metadata["judgments"]] == [first, second]
    assert metadata["idk"] == [second]

    erased = read_corpus([path], "varierr", NLI, naming=erasing("Ann2"))
    assert set(erased.annotations["annotator_id"]) == {first}
    metadata = json.loads(erased.annotations["metadata"][0])
    assert (metadata["judgments"], metadata["idk"]) == ([{"annotator": first, "makes_sense": True}], [])
    assert erased.counts["rows_in"] == 2 == erased.counts["rows_accepted"] + erased.counts["rows_erased"]


@pytest.mark.parametrize("keeps_ids", [False, True])
def test_erased_people_are_not_read_whether_ids_are_kept_or_not(tmp_path: Path, keeps_ids: bool) -> None:
    path = table(
        tmp_path / "t.csv",
        "1,Rain.,Wet.,Alice,neutral,words of hers,",
        "1,Rain.,Wet.,Bob,neutral,words of his,Alice",
        "2,Rain.,Wet.,Alice,perhaps,more words of hers,",
        "3,words of hers,Alice",
        more=",reviewed_by",
    )
    result = read_corpus([path], "table", NLI, naming=erasing("Alice", keeps_ids=keeps_ids))
    assert "hers" not in everything(result)
    assert "Alice" not in everything(result)
    assert pseudonym("Alice") not in everything(result)
    assert result.annotations["annotator_id"].to_list() == ["Bob" if keeps_ids else pseudonym("Bob")]
    assert result.counts["rows_erased"] == 2
    assert result.counts["rows_in"] == 4


def test_a_pseudonym_stays_what_it_is_so_that_written_tables_come_back(tmp_path: Path) -> None:
    alice = pseudonym("Alice")
    path = table(tmp_path / "t.csv", f"1,Rain.,Wet.,{alice},neutral,a", "2,Rain.,Wet.,Alice,neutral,b")
    result = read_corpus([path], "table", NLI, naming=NAMING)
    assert result.annotations["annotator_id"].unique().to_list() == [alice]


def test_withdrawals_find_people_by_id_or_pseudonym(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text(f"annotator_id,withdrawn\nAlice,yes\n{pseudonym('Bob')},yes\n", encoding="utf-8")
    batch = read_batch(path, "table", NLI, naming=NAMING)
    assert batch.withdrawals["annotator_id"].to_list() == [pseudonym("Alice"), pseudonym("Bob")]
    assert find_annotators([path], "table") == {"Alice": 1, pseudonym("Bob"): 1}
    left = read_batch(path, "table", NLI, naming=erasing("Alice"))
    assert left.withdrawals["annotator_id"].to_list() == [pseudonym("Bob")]
    assert (left.counts["rows_in"], left.counts["rows_erased"], left.counts["withdrawals"]) == (2, 1, 1)


@pytest.mark.parametrize("note", ["Alice Weiss", "see Alice Weiss.", "Bob; Alice Weiss, (Carol)", "by:Alice Weiss"])
def test_people_who_do_not_speak_in_a_file_are_found_by_their_pseudonyms(tmp_path: Path, note: str) -> None:
    path = table(tmp_path / "t.csv", f'1,Rain.,Wet.,Bob,neutral,a,"{note}"', more=",note")
    known = Naming("c", KEY, known=frozenset({pseudonym("Alice Weiss"), pseudonym("Carol")}))
    kept = everything(read_corpus([path], "table", NLI, naming=known))
    assert not any(name in kept for name in ("Alice", "Weiss", "Carol", "Bob"))
    assert pseudonym("Alice Weiss") in kept
    erased = everything(read_corpus([path], "table", NLI, naming=erasing("Alice Weiss", keeps_ids=True)))
    assert "Weiss" not in erased
    assert "[erased]" in erased
    assert "Bob" in erased


def test_a_corpus_of_erased_people_alone_has_no_usable_row(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "1,Rain.,Wet.,Alice,neutral,a")
    with pytest.raises(CorpusError):
        read_corpus([path], "table", NLI, naming=erasing("Alice"))


def test_without_a_naming_everything_is_as_in_the_file(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "1,Rain.,Wet.,Alice,neutral,a", "2,ragged,Alice")
    result = read_corpus([path], "table", NLI)
    assert result.annotations["annotator_id"].to_list() == ["Alice"]
    assert json.loads(result.quarantine["record"][0]) == {"fields": ["2", "ragged", "Alice"]}
    assert isinstance(result.annotations, pl.DataFrame)
