"""The LeWiDi-2025 shared-task form: one JSON object by item id, labels by annotator, explanations as a bare list.

Source: LeWiDi-2025 (Learning with Disagreements). An annotator may hold several labels (`"entailment,neutral"`);
the explanations then outnumber the annotators and align as annotator order, then label in alphabetical order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capo_core.corpora.records import RepeatedKeys, parse_json_file, type_name
from capo_core.errors import InputFileError
from capo_core.quality import Candidate, Problem

TEXT_FIELDS = (("context", "statement"), ("Question1", "Question2"))
"""Names of the two texts in the published files; under other names the file's own order counts."""

QUIRKS = (
    "records",
    "items_without_annotations",
    "two_label_slots",
    "blank_labels",
    "unlabelled_items",
    "unlabelled_items_showing_two_label_slots",
)
"""What is counted in every file, 0 included."""


def read_lewidi(paths: list[Path]) -> tuple[list[Candidate], Counter[str]]:
    """Return every annotation of LeWiDi files as candidates, in file order, and the count of each quirk.

    The format has no lines: `source_line` is the record's number in its file. An id that stands twice in one
    file is refused the second time, because a JSON reader elsewhere would see only one of the two.

    Raises:
        InputFileError: if a file cannot be read or is not strict JSON; names line and column.
    """
    candidates: list[Candidate] = []
    quirks: Counter[str] = Counter(dict.fromkeys(QUIRKS, 0))
    for path in paths:
        content, _ = parse_json_file(path)
        if not isinstance(content, dict | RepeatedKeys):
            raise InputFileError(
                f"{path}: holds {type_name(content)}, an object of items by id is needed; is corpus.format right?"
            )
        seen: set[str] = set()
        for number, (source_id, record) in enumerate(_pairs(content), start=1):
            quirks["records"] += 1
            if source_id in seen:
                detail = f"id {source_id!r} stands twice in the file; the first stays, give this item an id of its own"
                problem = Problem("id", "duplicate_key", detail)
                candidates.append(Candidate(path.name, number, source_id, record=record, problem=problem))
                continue
            seen.add(source_id)
            candidates.extend(_read_record(path.name, number, source_id, record, quirks))
    return candidates, quirks


def read_annotators(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the metadata of each annotator and how many trailing commas were repaired.

    The published files carry trailing commas, which JSON forbids; those are forgiven, nothing else is.

    Raises:
        InputFileError: if the file is not JSON apart from that, or not an object of objects by annotator.
    """
    content, n_repaired = parse_json_file(path, trailing_commas=True)
    if not isinstance(content, dict):
        found = "an object in which an annotator stands twice" if isinstance(content, RepeatedKeys) else None
        raise InputFileError(f"{path}: holds {found or type_name(content)}, an object of annotators by id is needed")
    for number, details in enumerate(content.values(), start=1):
        if not isinstance(details, dict):  # messages are kept: they name nobody
            raise InputFileError(f"{path}: annotator number {number} is {type_name(details)}, an object is needed")
    return {annotator.strip(): details for annotator, details in content.items()}, n_repaired


def _pairs(content: dict[str, Any] | RepeatedKeys) -> list[tuple[str, Any]]:
    """Return the ids and records of a file in order, repeated ids included."""
    return list(content.items()) if isinstance(content, dict) else list(content)


def _read_record(file: str, number: int, source_id: str, record: object, quirks: Counter[str]) -> Iterator[Candidate]:
    """Yield the candidates of one record and count its quirks; an unreadable record is one candidate."""
    parts = _parts(record)
    if isinstance(parts, Problem):
        yield Candidate(file, number, source_id, record=record, problem=parts)
        return
    assert isinstance(record, dict)
    text_a, text_b, labels, explanations = parts
    slots = _slots(labels, record.get("annotators"))
    problem = _check_alignment(slots, labels, record.get("annotators"), explanations)
    if problem is not None:
        yield Candidate(file, number, source_id, record=record, problem=problem)
        return
    _count_slots(slots, quirks)
    metadata = {key: value for key, value in record.items() if key not in ("text", "annotations", "other_info")}
    metadata |= {key: value for key, value in record["other_info"].items() if key != "explanations"}
    for (annotator, label), explanation in zip(slots, explanations, strict=True):
        yield Candidate(
            source_file=file,
            source_line=number,
            source_id=source_id,
            text_a=text_a,
            text_b=text_b,
            annotator_id=annotator,
            label=label,
            explanation=explanation,
            metadata=metadata,
            record={"id": source_id, "text": record["text"], "annotations": {annotator: label}}
            | {"explanations": [explanation]},
        )


def _parts(record: object) -> tuple[str, str, dict[str, Any], list[Any]] | Problem:
    """Return the two texts, the labels by annotator and the explanations of a record, or what is wrong with it."""
    if not isinstance(record, dict):
        return Problem("record", "malformed_row", f"the record is {type_name(record)}, an object is needed")
    text = record.get("text")
    if not isinstance(text, dict) or len(text) != 2:
        found = f"an object of {len(text)}" if isinstance(text, dict) else type_name(text)
        return Problem("text", "missing_text", f"'text' is {found}, an object of the item's two texts is needed")
    names = next((pair for pair in TEXT_FIELDS if set(pair) == set(text)), tuple(text))
    for field, name in zip(("text_a", "text_b"), names, strict=True):
        if not isinstance(text[name], str) or not text[name].strip():
            detail = f"text {name!r} is {type_name(text[name])} or blank; an item needs both of its texts"
            return Problem(field, "missing_text", detail)
    labels, other = record.get("annotations"), record.get("other_info")
    if not isinstance(labels, dict):
        found = "an object in which an annotator stands twice" if isinstance(labels, RepeatedKeys) else None
        detail = f"'annotations' is {found or type_name(labels)}, an object of labels by annotator is needed"
        return Problem("annotations", "malformed_row", detail)
    explanations = other.get("explanations") if isinstance(other, dict) else None
    if type(explanations) is not list:
        detail = f"'other_info.explanations' is {type_name(explanations)}, a list is needed"
        return Problem("explanations", "malformed_row", detail)
    return text[names[0]], text[names[1]], labels, explanations


def _slots(labels: dict[str, Any], annotators: object) -> list[tuple[str, object]]:
    """Return (annotator, label) in the order of the explanations.

    Where an annotator's label is blank, `annotators` (which repeats who gave two) says how many slots there were.
    """
    listed = Counter(_names(annotators))
    slots: list[tuple[str, object]] = []
    for annotator, stated in labels.items():
        if not isinstance(stated, str):
            slots.append((annotator, stated))
        elif stated.strip():
            slots.extend((annotator, label) for label in sorted(part.strip() for part in stated.split(",")))
        else:
            slots.extend([(annotator, "")] * max(1, listed[annotator.strip()]))
    return slots


def _check_alignment(
    slots: list[tuple[str, object]], labels: dict[str, Any], annotators: object, explanations: list[Any]
) -> Problem | None:
    """Return the problem if labels, annotators and explanations of a record do not match one to one."""
    if len(slots) != len(explanations):
        detail = (
            f"{len(labels)} annotators hold {len(slots)} labels, but there are {len(explanations)} explanations; "
            "whose they are cannot be known. Give one explanation per annotator and label"
        )
        return Problem("explanations", "misaligned_explanations", detail)
    names = _names(annotators)
    repeated, distinct = [annotator.strip() for annotator, _ in slots], [annotator.strip() for annotator in labels]
    if names and names not in (repeated, distinct):
        detail = f"'annotators' lists {len(names)}, who are not those who hold the labels in 'annotations', in order"
        return Problem("annotators", "misaligned_explanations", detail)
    return None


def _names(annotators: object) -> list[str]:
    """Return the annotators a record lists, once per label they gave."""
    return [name.strip() for name in annotators.split(",")] if isinstance(annotators, str) and annotators else []


def _count_slots(slots: list[tuple[str, object]], quirks: Counter[str]) -> None:
    """Count what is peculiar to the labels of one record."""
    n_slots = Counter(annotator for annotator, _ in slots)
    blank = [isinstance(label, str) and not label.strip() for _, label in slots]
    n_twice = sum(n == 2 for n in n_slots.values())
    unlabelled = bool(slots) and all(blank)
    quirks["items_without_annotations"] += not slots
    quirks["two_label_slots"] += n_twice
    quirks["blank_labels"] += sum(blank)
    quirks["unlabelled_items"] += unlabelled
    # A leak of the published test files: without any label they still say who gave two.
    quirks["unlabelled_items_showing_two_label_slots"] += unlabelled and n_twice > 0
