"""The rules an annotation must meet, in one place for every corpus format; what fails is quarantined with its reason.

Reasons: `missing_text`, `missing_annotator`, `missing_label`, `unknown_label`, `score_not_integer`,
`score_out_of_bounds`, `empty_explanation`, `duplicate_annotation`, `second_label`, `not_utf8` and `malformed_row`.
Readers add what only they can see: `invalid_json`, `duplicate_key`, `misaligned_explanations`, `unclear_withdrawal`;
so does who adds a batch to a corpus (`capo_core.batches.extending`).
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from capo_core.errors import CorpusError
from capo_core.text import identity_form, text_id
from schemas.config import NominalLabels, TaskSpec
from schemas.frames import ANNOTATIONS, QUARANTINE, WITHDRAWALS, check_columns

_INTEGER = re.compile(r"(?P<sign>[+\-−–]?)(?P<digits>[0-9]{1,18})(?:\.0+)?")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: what a byte that is not UTF-8 becomes when a file is decoded with `surrogateescape`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be used: the field at fault, a machine-readable reason, a sentence for the reader."""

    field: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One (item, annotator, label, explanation) as a reader found it, unchecked; `record` is what quarantine keeps."""

    source_file: str
    source_line: int
    source_id: object = None
    text_a: object = None
    text_b: object = None
    annotator_id: object = None
    label: object = None
    explanation: object = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    record: object = None
    problem: Problem | None = None


def check_candidates(candidates: Sequence[Candidate], task: TaskSpec) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the annotations that meet every rule and, row by row, the others.

    An item is its two texts (`text_id`), never the file's id. Of several annotations with the same item,
    annotator and label the first stays; so does the first label where the task allows one per annotator.

    Args:
        candidates: rows in reading order.
        task: says which labels exist and whether an annotator may give several.

    Returns:
        `ANNOTATIONS` sorted by item_id, annotator_id, label, and `QUARANTINE` in reading order.
    """
    accepted: list[dict[str, object]] = []
    quarantined: list[dict[str, object]] = []
    seen: dict[tuple[str, str], dict[str, str]] = {}
    for candidate in candidates:
        row = _check_fields(candidate, task)
        if not isinstance(row, Problem):
            labels = seen.setdefault((row["item_id"], row["annotator_id"]), {})
            row = _check_repetition(row, labels, task)
        if isinstance(row, Problem):
            quarantined.append(_quarantine_row(candidate, row))
            continue
        place = f"{candidate.source_file}, line or record {candidate.source_line}"
        seen[row["item_id"], row["annotator_id"]][row["label"]] = place
        accepted.append({**row, **_source_fields(candidate)})
    columns = {name: dtype for name, dtype in ANNOTATIONS.items() if name != "context_id"}
    annotations = add_context_ids(pl.DataFrame(accepted, schema=columns))
    quarantine = pl.DataFrame(quarantined, schema=QUARANTINE)
    return (
        check_columns(annotations.sort("item_id", "annotator_id", "label"), ANNOTATIONS, "annotations"),
        check_columns(quarantine, QUARANTINE, "quarantine"),
    )


def check_withdrawals(candidates: Sequence[Candidate]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the withdrawals that name somebody and, row by row, the others.

    Args:
        candidates: rows in reading order; both texts or the source's id name an item, none of these all items.

    Returns:
        `WITHDRAWALS` and `QUARANTINE`, both in reading order.
    """
    accepted, quarantined = [], []
    for candidate in candidates:
        row = _check_withdrawal(candidate)
        if isinstance(row, Problem):
            quarantined.append(_quarantine_row(candidate, row))
        else:
            accepted.append(row)
    return pl.DataFrame(accepted, schema=WITHDRAWALS), pl.DataFrame(quarantined, schema=QUARANTINE)


def refuse_rows(rows: pl.DataFrame, field: str, reason: str, detail: str) -> pl.DataFrame:
    """Return rows that were accepted, or withdrawals, as `QUARANTINE`.

    Args:
        rows: annotator_id, source_file, source_line, source_id and any other columns, which the record keeps.
        field: which is at fault; likewise reason and detail.
    """
    kept = ("source_file", "source_line", "source_id", "annotator_id")
    refused = [
        {name: row[name] for name in kept}
        | {"field": field, "reason": reason, "detail": detail, "record": to_json(row)}
        for row in rows.iter_rows(named=True)
    ]
    return pl.DataFrame(refused, schema=QUARANTINE)


def add_context_ids(annotations: pl.DataFrame) -> pl.DataFrame:
    """Return `annotations` with `context_id`, and with one spelling of each item's texts.

    Items are joined that share a text in either position, directly or through others: connected components of
    the graph whose nodes are texts (identity form) and whose edges are items. A component is called after its
    smallest item_id. Where an item's texts differ in white space or Unicode form, all rows get the smallest.

    Args:
        annotations: item_id, text_a, text_b and any other columns, in any order.
    """
    annotations = annotations.with_columns(
        pl.col("text_a").min().over("item_id"), pl.col("text_b").min().over("item_id")
    )
    items = annotations.select("item_id", "text_a", "text_b").unique("item_id").sort("item_id")
    if items.is_empty():
        return annotations.with_columns(pl.lit(None, dtype=pl.String).alias("context_id"))
    numbers: dict[str, int] = {}
    ends = [
        [numbers.setdefault(identity_form(text), len(numbers)) for text in items[column]]
        for column in ("text_a", "text_b")
    ]
    contexts = join_contexts(items["item_id"], np.array(ends[0]), np.array(ends[1]))
    return annotations.join(contexts, on="item_id", how="left", maintain_order="left")


def join_contexts(item_ids: pl.Series, first: np.ndarray, second: np.ndarray) -> pl.DataFrame:
    """Return `item_id` and `context_id` of items that are joined by shared texts: see `add_context_ids`.

    Args:
        item_ids: each once.
        first: [n], the number of each item's first text, equal where the texts are the same, from 0.
        second: [n], likewise of the second text, in the same numbering.
    """
    n_texts = int(max(first.max(initial=-1), second.max(initial=-1))) + 1
    graph = coo_array((np.ones(len(item_ids), dtype=np.int8), (first, second)), shape=(n_texts, n_texts))
    _, component = connected_components(graph, directed=False)
    return pl.DataFrame({"item_id": item_ids, "component": component[first]}).select(
        "item_id", pl.col("item_id").min().over("component").alias("context_id")
    )


def require_annotators(annotations: pl.DataFrame, minimum: int = 2) -> None:
    """Return nothing if at least `minimum` annotators are present.

    Args:
        annotations: a frame with annotator_id.
        minimum: number of distinct annotators needed.

    Raises:
        CorpusError: if there are fewer; names those found.
    """
    found = sorted(annotations["annotator_id"].unique().to_list())
    if len(found) < minimum:
        raise CorpusError(
            f"the corpus holds annotations of {len(found)} annotator(s) ({', '.join(found) or 'none'}); at least "
            f"{minimum} are needed, because a person's way of annotating is only seen against others'. "
            "Add files with more annotators and look in the quarantine for rows that were refused"
        )


def count_explanations_in_train(corpus: pl.DataFrame) -> int:
    """Return how many test annotations carry an explanation that also stands, word for word, in train.

    Informational: short explanations recur without any leak ("same meaning"). Compared in identity form.

    Args:
        corpus: a `CORPUS` frame; explanation and split are read.
    """
    forms = corpus.select("split", pl.col("explanation").map_elements(identity_form, return_dtype=pl.String))
    train = forms.filter(pl.col("split") == "train").select("explanation").unique()
    return forms.filter(pl.col("split") == "test").join(train, on="explanation", how="semi").height


def to_json(value: object) -> str:
    """Return `value` as JSON with sorted keys; what JSON has no form for (dates, NaN, half characters) as words."""
    return printable(json.dumps(_finite(value), ensure_ascii=False, sort_keys=True, default=str))


def printable(text: str) -> str:
    """Return `text` with half surrogate pairs and undecoded bytes written as backslash escapes, so that it is UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_blank(text: str) -> bool:
    """Return whether `text` shows nothing: white space, control and format characters (zero-width space) only."""
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") for char in text)


def match_label(label: str, task: TaskSpec) -> str | Problem:
    """Return the task's own spelling of `label`, or what is wrong with it.

    Nominal names match whatever their case; scores may carry a sign and zero decimals (`+3`, `3.0`).
    """
    stated = label.strip()
    if isinstance(task.labels, NominalLabels):
        found = next((name for name in task.labels.names if name.casefold() == stated.casefold()), None)
        if found is not None:
            return found
        allowed = ", ".join(task.labels.names)
        return Problem(
            "label",
            "unknown_label",
            f"label {_excerpt(label)} is none of: {allowed}. Correct the row or the task's label names",
        )
    bounds = f"{task.labels.minimum} to {task.labels.maximum}"
    number = _INTEGER.fullmatch(stated)
    if number is None:
        return Problem(
            "label", "score_not_integer", f"score {_excerpt(label)} is not an integer; give one from {bounds}"
        )
    score = int(number["digits"]) * (-1 if number["sign"] in ("-", "−", "–") else 1)
    if not task.labels.minimum <= score <= task.labels.maximum:
        return Problem(
            "label",
            "score_out_of_bounds",
            f"score {score} is outside {bounds}. Correct the row or the task's minimum and maximum",
        )
    return str(score)


def _check_fields(candidate: Candidate, task: TaskSpec) -> dict[str, str] | Problem:
    """Return the checked fields of a candidate, or the first problem found."""
    if candidate.problem is not None:
        return candidate.problem
    fields: dict[str, str] = {}
    missing = {
        "text_a": "missing_text",
        "text_b": "missing_text",
        "annotator_id": "missing_annotator",
        "label": "missing_label",
        "explanation": "empty_explanation",
    }
    for name, reason in missing.items():
        value = as_text(getattr(candidate, name), number_allowed=name in ("annotator_id", "label"))
        if value is None:
            found = f"{type(getattr(candidate, name)).__name__} {_excerpt(getattr(candidate, name))}"
            return Problem(name, "malformed_row", f"{name} must be text, found {found}. Correct the row")
        if is_blank(value):
            return Problem(name, reason, f"{name} is empty. Fill it in, or remove the row")
        if HALF_CHARACTER.search(value):
            detail = f"{name} holds bytes or half characters that are not UTF-8: {_excerpt(value)}. Save it as UTF-8"
            return Problem(name, "not_utf8", detail)
        fields[name] = value
    label = match_label(fields["label"], task)
    if isinstance(label, Problem):
        return label
    fields["label"] = label
    fields["annotator_id"] = fields["annotator_id"].strip()
    fields["item_id"] = text_id(fields["text_a"], fields["text_b"])
    return fields


def _check_withdrawal(candidate: Candidate) -> dict[str, object] | Problem:
    """Return a row of `WITHDRAWALS`, or why it cannot be known what is withdrawn."""
    annotator = as_text(candidate.annotator_id, number_allowed=True)
    if annotator is None or is_blank(annotator):
        return Problem("annotator_id", "missing_annotator", "a withdrawal must say whose; fill in annotator_id")
    given = {name: as_text(getattr(candidate, name), number_allowed=False) or "" for name in ("text_a", "text_b")}
    source_id = (as_text(candidate.source_id, number_allowed=True) or "").strip()
    blank = [name for name, text in given.items() if is_blank(text)]
    if len(blank) == 1 and not source_id:
        detail = f"{blank[0]} is missing: name the item by both texts or by item_id, or leave all three empty to "
        return Problem(blank[0], "missing_text", detail + "withdraw everything the annotator said")
    return {
        "annotator_id": annotator.strip(),
        "item_id": None if blank else text_id(*given.values()),
        "source_id": source_id or None,
        "source_file": printable(candidate.source_file),
        "source_line": candidate.source_line,
    }


def _check_repetition(row: dict[str, str], labels: Mapping[str, str], task: TaskSpec) -> dict[str, str] | Problem:
    """Return `row`, or the problem that its annotator already labelled the item (`labels`: each label's place)."""
    who = f"annotator {_excerpt(row['annotator_id'])}"
    if row["label"] in labels:
        detail = f"{who} already gave this item the label {row['label']!r} ({labels[row['label']]}); the first stays"
        return Problem("annotator_id", "duplicate_annotation", detail)
    if labels and not task.multiple_labels:
        first, place = next(iter(labels.items()))
        return Problem(
            "label",
            "second_label",
            f"{who} already gave this item the label {first!r} ({place}); the first stays. "
            "Set the task's multiple_labels if several labels are meant",
        )
    return row


def as_text(value: object, *, number_allowed: bool) -> str | None:
    """Return a cell as text, "" where it is missing (None, NaN), None where its type cannot be meant."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not number_allowed or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A column of integers with gaps arrives as floats (3.0); anything else is left for the label rule to refuse.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _source_fields(candidate: Candidate) -> dict[str, object]:
    """Return the columns that say where an accepted row came from."""
    return {
        "source_file": printable(candidate.source_file),
        "source_line": candidate.source_line,
        "source_id": "" if candidate.source_id is None else printable(str(candidate.source_id)),
        "metadata": to_json(candidate.metadata),
    }


def _quarantine_row(candidate: Candidate, problem: Problem) -> dict[str, object]:
    """Return the quarantine row of a candidate."""

    def optional(value: object) -> str | None:
        return None if value is None else printable(str(value))

    return {
        "source_file": printable(candidate.source_file),
        "source_line": candidate.source_line,
        "source_id": optional(candidate.source_id),
        "annotator_id": optional(candidate.annotator_id),
        "field": problem.field,
        "reason": problem.reason,
        "detail": printable(problem.detail),
        "record": to_json(candidate.record),
    }


def _excerpt(value: object) -> str:
    """Return the start of a value as it is quoted in messages."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"


def _finite(value: object) -> object:
    """Return `value` with NaN and infinities as words, which JSON has no numbers for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
