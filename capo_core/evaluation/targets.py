"""What generations are held against: the people's annotations of the same held-out items, checked and in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from schemas.frames import CORPUS, GENERATIONS, check_columns

HELD_OUT_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class HeldOut:
    """The people's annotations of the items generated for, and what may be learnt from.

    Attributes:
        items: ids of the items generated for, sorted; axis I.
        annotators: everybody in the corpus, sorted; axis A.
        labels: [A, I] of tuples of labels, sorted, empty where the annotator did not annotate the item.
        explanations: [A, I] of tuples of explanations in the order of their labels, white space around them removed.
        train: CORPUS rows of the training split.
        seen: CORPUS rows a classifier may learn from: training, and validation where test is generated for.
        people: CORPUS rows of the items generated for.
    """

    items: tuple[str, ...]
    annotators: tuple[str, ...]
    labels: np.ndarray
    explanations: np.ndarray
    train: pl.DataFrame
    seen: pl.DataFrame
    people: pl.DataFrame

    @property
    def texts(self) -> pl.DataFrame:
        """Columns item_id, text_a, text_b of the items generated for, by item_id."""
        return self.people.select("item_id", "text_a", "text_b").unique("item_id").sort("item_id")


@dataclass(frozen=True)
class Responses:
    """Everything one method answered with one way of deciding, arrays [S, A, I].

    A response that imitates nobody (annotator_id null) stands at every annotator.

    Attributes:
        method: zero_shot | history | profile | sft | capo.
        decision: sampled | greedy | constrained.
        seeds: sorted; axis S.
        present: whether there is a response.
        parsed: whether it is one in which label and explanation could be read.
        labels: the label, None where unparseable.
        explanations: the explanation without white space around it, None where unparseable.
    """

    method: str
    decision: str
    seeds: tuple[int, ...]
    present: np.ndarray
    parsed: np.ndarray
    labels: np.ndarray
    explanations: np.ndarray


def read_held_out(corpus: pl.DataFrame, generations: pl.DataFrame) -> HeldOut:
    """Return the targets of `generations`.

    Raises:
        CorpusError: if there are no generations, they name unknown items or annotators, or their items are not all of
            one held-out split.
        ValueError: if a frame has other columns than its schema.
    """
    check_columns(corpus, CORPUS, "corpus")
    check_columns(generations, GENERATIONS, "generations")
    if generations.is_empty():
        raise CorpusError("there are no generations to evaluate")
    split = _held_out_split(corpus, generations)
    items = tuple(generations["item_id"].unique().sort().to_list())
    annotators = tuple(corpus["annotator_id"].unique().sort().to_list())
    if unknown := sorted(set(generations["annotator_id"].drop_nulls()) - set(annotators)):
        raise CorpusError(
            f"generations imitate {unknown}, who are not among the corpus's annotators {list(annotators)}"
        )
    people = corpus.filter(pl.col("item_id").is_in(items)).sort("annotator_id", "item_id", "label", "explanation")
    seen_splits = ["train", "validation"] if split == "test" else ["train"]
    return HeldOut(
        items=items,
        annotators=annotators,
        labels=_collect(people, "label", annotators, items),
        explanations=_collect(people, "explanation", annotators, items),
        train=corpus.filter(pl.col("split") == "train"),
        seen=corpus.filter(pl.col("split").is_in(seen_splits)).sort("item_id", "annotator_id", "label", "explanation"),
        people=people,
    )


def read_responses(generations: pl.DataFrame, held_out: HeldOut) -> list[Responses]:
    """Return the responses by method and decision, sorted by both.

    Raises:
        CorpusError: if a method answered one item for one annotator twice with the same seed and decision.
    """
    rows = generations.join(pl.DataFrame({"target": held_out.annotators}, schema={"target": pl.String}), how="cross")
    rows = rows.filter(pl.col("annotator_id").is_null() | (pl.col("annotator_id") == pl.col("target")))
    cell = ["method", "decision", "seed", "target", "item_id"]
    if (twice := rows.filter(pl.struct(cell).is_duplicated())).height:
        raise CorpusError(
            f"generations answer {twice.height} cells more than once, e.g. {twice.select(cell).row(0, named=True)}"
        )
    parts = rows.partition_by("method", "decision", as_dict=True)
    return [_arrange(str(key[0]), str(key[1]), parts[key], held_out) for key in sorted(parts)]


def main_decision(all_responses: Sequence[Responses]) -> str | None:
    """Return the way of deciding whose text is looked at in full: sampled, which is what a user reads, if there is any.

    Else constrained, whose explanations are sampled too, else greedy; None without responses.
    """
    present = {responses.decision for responses in all_responses}
    return next((decision for decision in ("sampled", "constrained", "greedy") if decision in present), None)


def choose_explanations(held_out: HeldOut, rng: np.random.Generator) -> np.ndarray:
    """Return one explanation per annotator and item, one of several drawn, [A, I]; None where there is none."""
    chosen = np.full(held_out.explanations.shape, None, dtype=object)
    for cell in np.ndindex(*chosen.shape):
        if written := held_out.explanations[cell]:
            chosen[cell] = written[int(rng.integers(len(written)))]
    return chosen


def explained_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the CORPUS rows with an explanation, white space around it removed."""
    # Python's strip, as everywhere here: polars takes fewer characters for white space.
    stripped = [None if text is None else text.strip() or None for text in rows["explanation"]]
    return rows.with_columns(pl.Series("explanation", stripped, dtype=pl.String)).drop_nulls("explanation")


def _held_out_split(corpus: pl.DataFrame, generations: pl.DataFrame) -> str:
    """Return the one split that all items generated for belong to."""
    known = corpus.select("item_id", "split").unique()
    if (unknown := generations.join(known, on="item_id", how="anti")["item_id"]).len():
        raise CorpusError(
            f"generations name {unknown.n_unique()} items that are not in the corpus, e.g. {unknown[0]!r}: "
            "evaluate them against the corpus they were generated from"
        )
    splits = sorted(generations.join(known, on="item_id", how="inner")["split"].unique().to_list())
    if len(splits) != 1 or splits[0] not in HELD_OUT_SPLITS:
        raise CorpusError(
            f"generations are for items of split {splits}; they must all be of one of {list(HELD_OUT_SPLITS)}"
        )
    return splits[0]


def _collect(people: pl.DataFrame, column: str, annotators: tuple[str, ...], items: tuple[str, ...]) -> np.ndarray:
    """Return the non-empty values of a column as tuples, [A, I], white space around them removed."""
    cells = _filled((len(annotators), len(items)), ())
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (annotators, items))
    for annotator, item, value in people.select("annotator_id", "item_id", column).iter_rows():
        if value is not None and (text := value.strip()):
            cells[rows[annotator], columns[item]] += (text,)
    return cells


def _arrange(method: str, decision: str, rows: pl.DataFrame, held_out: HeldOut) -> Responses:
    """Return the responses of one method and decision as arrays."""
    seeds = tuple(rows["seed"].unique().sort().to_list())
    shape = (len(seeds), len(held_out.annotators), len(held_out.items))
    present, parsed = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    labels, explanations = _filled(shape, None), _filled(shape, None)
    axes = [{name: i for i, name in enumerate(names)} for names in (seeds, held_out.annotators, held_out.items)]
    columns = ["seed", "target", "item_id", "label", "explanation", "parse_status"]
    for seed, annotator, item, label, explanation, status in rows.select(columns).iter_rows():
        cell = axes[0][seed], axes[1][annotator], axes[2][item]
        present[cell], parsed[cell] = True, status == "ok"
        labels[cell], explanations[cell] = label, (explanation or "").strip() or None
    return Responses(method, decision, seeds, present, parsed, labels, explanations)


def _filled(shape: tuple[int, ...], value: object) -> np.ndarray:
    """Return an array of objects that all are `value`."""
    cells = np.empty(shape, dtype=object)
    for index in np.ndindex(*shape):
        cells[index] = value
    return cells
