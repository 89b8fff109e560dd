"""VariErr NLI as its authors ship it: JSON Lines (despite the name), explanations under their labels.

Source: Weber-Genzel, Peng, de Marneffe and Plank, ACL 2024. Each record holds `context`, `statement`, for each
label a list of explanations with the second round's judgements, and item-level marks (`idk`, label sets, counts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capo_core.corpora.records import Line, read_json_lines, type_name
from capo_core.quality import Candidate, Problem

LABELS = ("entailment", "neutral", "contradiction")
N_ANNOTATORS = 4

QUIRKS = (
    "records",
    "items_without_annotations",
    "idk_marks",
    "items_with_idk",
    "two_label_slots",
    "judgements",
    "judgements_false",
    "explanations_with_fewer_than_four_judgements",
    "self_corrected",
    "label_correction",
    "empty_first_round_label_sets",
    "empty_second_round_label_sets",
    "null_label_counts",
    "error_labels",
    "source_ids_equal_without_last_letter",
)
"""What is counted in every file, 0 included."""


def read_varierr(paths: list[Path]) -> tuple[list[Candidate], Counter[str]]:
    """Return every annotation of VariErr files as candidates, in file order, and the count of each quirk.

    Annotators are called Ann1 to Ann4 as in the LeWiDi form of the same data: VariErr's annotator k is LeWiDi's
    Ann(k+1). Checked on the published files: 1,474 annotations stand in both forms, and under this rule every
    one of them has the same label and, character for character, the same explanation.

    Metadata: what stands beside the explanation (judgments, self_corrected, label_correction, its id) and beside
    the item (idk, error_labels, label sets and counts, …), annotator numbers renamed likewise.

    Raises:
        InputFileError: if a file cannot be read at all.
    """
    candidates: list[Candidate] = []
    quirks: Counter[str] = Counter(dict.fromkeys(QUIRKS, 0))
    for path in paths:
        for line in read_json_lines(path):
            quirks["records"] += 1
            candidates.extend(_read_record(path.name, line, quirks))
    ids = {candidate.source_id for candidate in candidates if isinstance(candidate.source_id, str)}
    # The last letter is the original MNLI label; the LeWiDi form drops it, and distinct items then share an id.
    quirks["source_ids_equal_without_last_letter"] = len(ids) - len({_without_label_letter(name) for name in ids})
    return candidates, quirks


def annotator_name(annotator: object) -> object:
    """Return VariErr's annotator number as the LeWiDi form names the person; anything else as it stands."""
    if isinstance(annotator, int) and not isinstance(annotator, bool) and annotator >= 0:
        return f"Ann{annotator + 1}"
    if isinstance(annotator, str) and annotator.isascii() and annotator.isdigit():
        return f"Ann{int(annotator[:9]) + 1}"
    return annotator


def _read_record(file: str, line: Line, quirks: Counter[str]) -> Iterator[Candidate]:
    """Yield the candidates of one line and count its quirks; a record without texts is one candidate."""
    record = line.value
    if record is None:
        yield Candidate(file, line.number, record={"line": line.text}, problem=line.problem)
        return
    texts = {field: record.get(field) for field in ("context", "statement")}
    absent = [field for field, text in texts.items() if not isinstance(text, str) or not text.strip()]
    if absent:
        detail = f"{absent[0]!r} is {type_name(texts[absent[0]])} or blank; an item needs both of its texts"
        field = "text_a" if absent[0] == "context" else "text_b"
        problem = Problem(field, "missing_text", detail)
        yield Candidate(file, line.number, record.get("id"), record=record, problem=problem)
        return
    label_fields = [*LABELS, *(name for name in record if name not in LABELS and _holds_explanations(record[name]))]
    slots: Counter[object] = Counter()
    for label in label_fields:
        for entry in _entries(record.get(label)):
            if isinstance(entry, dict):
                slots[str(entry.get("annotator"))] += 1
                _count_explanation(entry, quirks)
            yield _candidate(file, line.number, record, label, entry, label_fields)
    quirks["two_label_slots"] += sum(n == 2 for n in slots.values())
    quirks["items_without_annotations"] += not slots
    _count_item(record, quirks)


def _entries(value: object) -> list[Any]:
    """Return the explanations under a label; what is no list is one (unusable) entry, nothing is none."""
    if value is None:
        return []
    return value if type(value) is list else [value]


def _candidate(
    file: str, line: int, record: dict[str, Any], label: str, entry: object, label_fields: list[str]
) -> Candidate:
    """Return one explanation as a candidate."""
    kept = {"id": record.get("id"), "context": record["context"], "statement": record["statement"], label: entry}
    if not isinstance(entry, dict):
        detail = f"under {label!r} stands {type_name(entry)}; a list of objects with annotator and reason is needed"
        problem = Problem(label, "malformed_row", detail)
        return Candidate(file, line, record.get("id"), label=label, record=kept, problem=problem)
    item = {key: value for key, value in record.items() if key not in ("id", "context", "statement", *label_fields)}
    if type(item.get("idk")) is list:
        item["idk"] = [annotator_name(annotator) for annotator in item["idk"]]
    own = {key: value for key, value in entry.items() if key not in ("annotator", "reason", "id")}
    if type(own.get("judgments")) is list:
        own["judgments"] = [_rename_judge(judgement) for judgement in own["judgments"]]
    return Candidate(
        source_file=file,
        source_line=line,
        source_id=record.get("id"),
        text_a=record["context"],
        text_b=record["statement"],
        annotator_id=annotator_name(entry.get("annotator")),
        label=label,
        explanation=entry.get("reason"),
        metadata={**item, **own, "explanation_id": entry.get("id")},
        record=kept,
    )


def _rename_judge(judgement: object) -> object:
    """Return a second-round judgement with its annotator named as everywhere else."""
    if isinstance(judgement, dict) and "annotator" in judgement:
        return {**judgement, "annotator": annotator_name(judgement["annotator"])}
    return judgement


def _count_explanation(entry: dict[str, Any], quirks: Counter[str]) -> None:
    """Count what is peculiar to one explanation."""
    judgements = entry.get("judgments")
    judgements = judgements if isinstance(judgements, list) else []
    quirks["judgements"] += len(judgements)
    quirks["judgements_false"] += sum(isinstance(one, dict) and one.get("makes_sense") is False for one in judgements)
    quirks["explanations_with_fewer_than_four_judgements"] += len(judgements) < N_ANNOTATORS
    quirks["self_corrected"] += entry.get("self_corrected") is True
    quirks["label_correction"] += entry.get("label_correction") is True


def _count_item(record: dict[str, Any], quirks: Counter[str]) -> None:
    """Count what is peculiar to one item."""
    idk = record.get("idk")
    quirks["idk_marks"] += len(idk) if isinstance(idk, list) else 0
    quirks["items_with_idk"] += bool(idk)
    errors = record.get("error_labels")
    quirks["error_labels"] += len(errors) if isinstance(errors, list) else 0
    quirks["empty_first_round_label_sets"] += record.get("label_set_round_1") == []
    quirks["empty_second_round_label_sets"] += record.get("label_set_round_2") == []
    for field in ("label_count_round_1", "label_count_round_2"):
        counts = record.get(field)
        quirks["null_label_counts"] += sum(n is None for n in counts.values()) if isinstance(counts, dict) else 0


def _holds_explanations(value: object) -> bool:
    """Return whether a field is a list of explanations, so that a label the data set does not know is noticed."""
    return isinstance(value, list) and any(isinstance(entry, dict) and "reason" in entry for entry in value)


def _without_label_letter(source_id: str) -> str:
    return source_id[:-1] if source_id[-1:] in ("e", "n", "c") else source_id
