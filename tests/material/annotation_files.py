"""Small annotation files of every supported form, made from the bundled example: what fuzzing starts from."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from importlib.resources import files
from typing import Any

import polars as pl
from evaluation_material import NLI

N_ROWS = 24
LABELS = NLI.labels.names


def example_rows() -> list[dict[str, str]]:
    """Return the first annotations of the bundled corpus, by four people, as a table's rows."""
    text = files("capo_core.corpora").joinpath("example/nli.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines(keepends=True)))[:N_ROWS]
    return [row | {"label": row["label"]} for row in rows]


def varierr_records() -> list[dict[str, Any]]:
    """Return the annotations as VariErr's records: explanations under their labels."""
    records: dict[str, dict[str, Any]] = {}
    people: dict[str, int] = {}
    for row in example_rows():
        record = records.setdefault(
            row["item_id"],
            {"id": f"{row['item_id']}n", "context": row["text_a"], "statement": row["text_b"]}
            | {label: [] for label in LABELS}
            | {"idk": [1], "label_set_round_1": [], "label_set_round_2": ["neutral"], "error_labels": ["neutral"]}
            | {"label_count_round_1": {"neutral": 1.0, "entailment": None}},
        )
        number = people.setdefault(row["annotator_id"], len(people))
        judgements = [{"annotator": judge, "makes_sense": judge != 1} for judge in range(4)]
        entry = {"annotator": number, "id": f"x{number}", "reason": row["explanation"], "judgments": judgements}
        record[row["label"]].append(entry | {"self_corrected": False, "label_correction": True})
    return list(records.values())


def lewidi_records() -> dict[str, Any]:
    """Return the annotations as the LeWiDi form: an object by item, labels by annotator, explanations as a list."""
    grouped: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for row in example_rows():
        grouped[row["item_id"]].append(row)
    return {
        item: {
            "annotation task": "nli",
            "text": {"context": rows[0]["text_a"], "statement": rows[0]["text_b"]},
            "annotators": ",".join(row["annotator_id"] for row in rows),
            "number of annotators": str(len(rows)),
            "annotations": {row["annotator_id"]: row["label"] for row in rows},
            "soft_label": {"neutral": 0.5, "entailment": 0.5},
            "split": "train",
            "other_info": {"explanations": [row["explanation"] for row in rows]},
        }
        for item, rows in grouped.items()
    }


def annotators_meta() -> dict[str, Any]:
    """Return metadata by annotator, as LeWiDi ships it."""
    return {who: {"age": "31", "gender": "f", "nationality": "?"} for who in ("ada", "ben", "chi", "dov")}


def json_lines(records: list[Any]) -> bytes:
    """Return one JSON object per line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def csv_table(rows: list[dict[str, str]]) -> bytes:
    """Return rows as CSV."""
    return pl.DataFrame(rows).write_csv().encode()
