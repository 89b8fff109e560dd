"""Examples side by side: per item and person, what the person wrote and what each method wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from capo_core.report.terms import PARSE_TITLES, decision_rank, method_class, method_title, order_methods
from schemas.config import TaskSpec

MAX_CHARACTERS = 3_000_000
"""Characters of examples embedded in the page; items beyond are left out whole and counted."""


@dataclass(frozen=True)
class Examples:
    """The examples of a page.

    Attributes:
        json: an object for the page's script, safe inside a script element.
        n_items: items embedded.
        n_items_left_out: items with generations that did not fit.
        people: annotator ids for the filter.
    """

    json: Markup
    n_items: int
    n_items_left_out: int
    people: tuple[str, ...]


@dataclass(frozen=True)
class Author:
    """Who writes beside the people: a method, or a method of one run. `style` names a style class of the page."""

    name: str
    title: str
    style: str


def list_methods(generations: pl.DataFrame) -> list[Author]:
    """Return every method of the generations in the report's order."""
    return [Author(name, method_title(name), method_class(name)) for name in order_methods(generations["method"])]


def collect_examples(
    corpus: pl.DataFrame,
    generations: pl.DataFrame,
    task: TaskSpec,
    authors: Sequence[Author],
    max_characters: int = MAX_CHARACTERS,
) -> Examples:
    """Return the examples of every item with generations, in order of item id, as far as `max_characters` reaches.

    Args:
        corpus: CORPUS; people's annotations of the items.
        generations: GENERATIONS; `method` is the name of one of the authors.
        task: names the two texts.
        authors: in the order in which they are shown.
        max_characters: of JSON embedded; at least one item is.
    """
    generations = generations.sort("item_id", "method", "annotator_id", "seed", "decision", nulls_last=False)
    by_item = {str(key[0]): part for key, part in generations.group_by("item_id", maintain_order=True)}
    human = {str(key[0]): part for key, part in corpus.group_by("item_id", maintain_order=True)}
    items, n_characters = [], 0
    for item_id, part in by_item.items():
        item = _collect_item(item_id, part, human.get(item_id))
        n_characters += len(json.dumps(item, ensure_ascii=False))
        if items and n_characters > max_characters:
            break
        items.append(item)
    content = {
        "names": [task.text_a_name, task.text_b_name],
        "decisions": sorted(generations["decision"].unique().to_list(), key=decision_rank),
        "methods": [{"id": author.name, "title": author.title, "style": author.style} for author in authors],
        "statuses": PARSE_TITLES,
        "manySeeds": generations["seed"].n_unique() > 1,
        "items": items,
    }
    imitated = generations["annotator_id"].drop_nulls().unique().sort().to_list()
    people = imitated or sorted(corpus["annotator_id"].unique().to_list())
    return Examples(embed_json(content), len(items), len(by_item) - len(items), tuple(people))


def _collect_item(item_id: str, generated: pl.DataFrame, written: pl.DataFrame | None) -> dict[str, Any]:
    """Return one item: its texts, the people's annotations and the methods' responses."""
    texts = written.select("text_a", "text_b").row(0) if written is not None else (None, None)
    human: dict[str, list[list[str]]] = {}
    if written is not None:
        for person, label, explanation in (
            written.sort("annotator_id", "label").select("annotator_id", "label", "explanation").iter_rows()
        ):
            human.setdefault(person, []).append([label, explanation])
    return {
        "id": item_id,
        "texts": list(texts),
        "human": human,
        "made": [_collect_response(row) for row in generated.iter_rows(named=True)],
    }


def _collect_response(row: dict[str, Any]) -> dict[str, Any]:
    """Return one response with short keys; the raw text only where it could not be read whole."""
    response = {
        "m": row["method"],
        "p": row["annotator_id"],
        "s": row["seed"],
        "d": row["decision"],
        "l": row["label"],
        "e": row["explanation"],
    }
    if row["parse_status"] != "ok":
        response |= {"status": row["parse_status"], "text": row["text"]}
    if row["truncated"]:
        response["cut"] = True
    return response


def embed_json(content: object) -> Markup:
    """Return JSON that can stand inside a script element: no `<`, `>`, `&` or line separator is left as it is."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
