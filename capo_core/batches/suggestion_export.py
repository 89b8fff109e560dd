"""Suggested items as files to annotate: a table, and an import for Label Studio; both come back as a batch.

The table has the columns of a batch, label and explanation empty, and texts that a spreadsheet would take for a formula
behind an apostrophe, which `capo_core.corpora.tabular` takes away again where it sees the column `RANK_COLUMN`. Label
Studio's CSV export has the same columns, because its controls bear their names.
"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import polars as pl

from capo_core.corpora.tabular import RANK_COLUMN
from capo_core.spreadsheet import neutralise_formulas
from schemas.config import TaskSpec

TABLE_FILE = "to_annotate.csv"
CONFIG_FILE, TASKS_FILE = "label_studio_config.xml", "label_studio_tasks.json"

_ASKED = ("item_id", "text_a", "text_b")


def write_suggestions(suggestions: pl.DataFrame, annotator_id: str, task: TaskSpec, folder: Path) -> None:
    """Write what the annotator is to fill in into a folder, made if need be.

    Args:
        suggestions: SUGGESTIONS.
        annotator_id: who is asked.
        task: its question, names of texts and labels.
        folder: gets `TABLE_FILE`, `CONFIG_FILE`, `TASKS_FILE`, and suggestions.parquet with the figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = suggestions.select(pl.col("rank").alias(RANK_COLUMN), *_ASKED, pl.lit(annotator_id).alias("annotator_id"))
    empty = [pl.lit("").alias(name) for name in ("label", "explanation")]
    neutralise_formulas(asked.with_columns(empty)).write_csv(folder / TABLE_FILE)
    records = [{"data": row} for row in asked.iter_rows(named=True)]
    (folder / TASKS_FILE).write_text(json.dumps(records, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / CONFIG_FILE).write_text(_write_interface(task), encoding="utf-8")
    suggestions.write_parquet(folder / "suggestions.parquet")


def _write_interface(task: TaskSpec) -> str:
    """Return Label Studio's labelling interface: both texts, one label, one explanation, both required."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value=task.question)
    for name, heading in (("text_a", task.text_a_name), ("text_b", task.text_b_name)):
        ElementTree.SubElement(view, "Header", value=heading)
        ElementTree.SubElement(view, "Text", name=name, value=f"${name}", valueType="text")
    about = {"toName": "text_b", "required": "true"}
    choices = ElementTree.SubElement(view, "Choices", {"name": "label", "choice": "single-radio"} | about)
    for label in task.labels.names:
        ElementTree.SubElement(choices, "Choice", value=label)
    ElementTree.SubElement(view, "Header", value="Why?")
    ElementTree.SubElement(view, "TextArea", {"name": "explanation", "rows": "3", "maxSubmissions": "1"} | about)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
