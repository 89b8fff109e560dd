"""Fifty annotators whose ids cannot be mistaken for anything else, and a search for them wherever anything is kept."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

COLUMNS = ("item_id", "text_a", "text_b", "annotator_id", "label", "explanation", "reviewed_by", "city", "consent")
N_PROLIFIC, N_ITEMS, N_MODELLED = 2, 12, 8
"""Annotators of the first items, all of them; the others have one of these each, and one that nobody else has."""
LABELS = ("entailment", "neutral", "contradiction")
SUBJECTS = ("river", "kitchen", "horse", "mayor", "bread", "violin", "harbour", "letter", "garden", "train")


def canary(number: int) -> str:
    """Return the id of an annotator: a name as people have it, another one each."""
    return f"Quetzal-Kanarienvogel {number:02d}xyz" if number % 2 else f"zimtkanari{number:02d}@aviary.example"


CANARIES = [canary(number) for number in range(50)]


def spoken(number: int, item: int) -> str:
    """Return what an annotator explains about an item; the word `plumage<number>q` is in nobody else's."""
    how = ("because", "since", "as I read it", "clearly")[number % 4]
    return f"{how} the {SUBJECTS[item % 10]} of item {item} is meant, plumage{number:02d}q"


def row(number: int, item: int) -> dict[str, str]:
    """Return one annotation as a row of the raw file; most people consent to analysis and release alone."""
    return {
        "item_id": f"i{item}",
        "text_a": f"The {SUBJECTS[item % 10]} number {item} was sold to a stranger.",
        "text_b": f"Somebody bought thing number {item}.",
        "annotator_id": CANARIES[number],
        "label": LABELS[(item + number) % 3],
        "explanation": spoken(number, item),
        "reviewed_by": CANARIES[(number + 1) % 50],
        "city": "Ulm" if number % 2 else "Bern",
        "consent": "" if number < N_MODELLED else "analysis, release",
    }


def write_raw_file(path: Path) -> Path:
    """Write the corpus: two annotators of many items, the others of two each, and rows that cannot be used."""
    rows = [row(number, item) for number in range(N_PROLIFIC) for item in range(N_ITEMS)]
    rows += [row(number, item) for number in range(N_PROLIFIC, 50) for item in (number % N_ITEMS, N_ITEMS + number)]
    rows += [
        row(5, 1) | {"label": "perhaps"},
        row(6, 2) | {"explanation": " "},
        row(0, 3),  # said twice
        row(7, 4) | {"text_b": ""},
        row(8, 5) | {"explanation": f"as {CANARIES[9]} also saw"} | {"label": "unheard of"},
    ]
    return write_rows(path, rows, broken=[f"i9,too,few,{CANARIES[10]}", f'i9,"a" b,c,{CANARIES[11]},neutral,x,,,'])


def write_rows(path: Path, rows: Iterable[dict[str, str]], broken: Iterable[str] = ()) -> Path:
    """Write rows as CSV, and lines that are none below."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [*COLUMNS, "withdrawn"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        handle.writelines(f"{line}\n" for line in broken)
    return path


def search(folders: Iterable[Path], needles: Iterable[str]) -> dict[str, list[str]]:
    """Return which needles stand in which files: in their bytes, and in what Parquet files decode to."""
    wanted = {needle: needle.encode("utf-8") for needle in needles}
    found: dict[str, list[str]] = {}
    for path in _files(folders):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pl.read_parquet(path).to_dicts(), ensure_ascii=False, default=str).encode("utf-8")
        hits = [needle for needle, form in wanted.items() if form in content]
        if hits:
            found[str(path)] = hits
    return found


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in ([folder] if folder.is_file() else folder.rglob("*")) if path.is_file())
