"""What adapters are trained on: the target's own responses, and those preferred over the other annotators'.

Paper (arXiv 2605.28802): a target annotator's label-explanation response is preferred over the other annotators'
valid responses to the same input. Which negatives count is not stated there; `relation` makes it a choice.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from capo_core.errors import CorpusError
from capo_core.prompts import build_prompt, response_text
from capo_core.text import identity_form
from schemas.config import TaskSpec
from schemas.frames import DEMONSTRATIONS, MESSAGES, PAIR_DROPS, PREFERENCES, check_columns

Relation = Literal["all", "same_label", "different_label"]

TRAINING_SPLITS = ("train", "validation")


def build_demonstrations(corpus: pl.DataFrame, annotator_id: str, task: TaskSpec, *, tagged: bool) -> pl.DataFrame:
    """Return the target's annotations as conversations to imitate; test never enters.

    Args:
        corpus: a `CORPUS` frame.
        annotator_id: the target.
        task: the task asked.
        tagged: whether the prompt names the annotator, for an adapter shared by several.

    Returns:
        `DEMONSTRATIONS` sorted by item_id, label.

    Raises:
        CorpusError: if the corpus has no such annotator.
    """
    own = _responses(corpus).filter(pl.col("annotator_id") == _require_annotator(corpus, annotator_id))
    demonstrations = (
        own.join(_prompts(own, task, annotator_id if tagged else None), on="item_id")
        .with_columns(_assistant_turn("response").alias("completion"))
        .sort("item_id", "label")
    )
    return check_columns(demonstrations.select(list(DEMONSTRATIONS)), DEMONSTRATIONS, "demonstrations")


def build_preferences(
    corpus: pl.DataFrame, annotator_id: str, task: TaskSpec, relation: Relation, *, tagged: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return each of the target's responses preferred over each other annotator's to the same item, and the drops.

    Drops: `no_other_annotator` (one row per annotation of the target that nobody else's stands beside),
    `identical_response` (the rejected response is, in identity form, one of the target's own to the item),
    `relation_excluded` (the pair is not of the relation asked for). Test never enters either table.

    Args:
        corpus: a `CORPUS` frame.
        annotator_id: the target, author of every chosen response.
        task: the task asked.
        relation: which pairs are kept by whether the two labels are the same.
        tagged: whether the prompt names the annotator, for an adapter shared by several.

    Returns:
        `PREFERENCES` sorted by item_id, chosen_label, rejected_annotator_id, rejected_label, and `PAIR_DROPS`
        sorted by item_id, rejected_annotator_id, reason.

    Raises:
        CorpusError: if the corpus has no such annotator.
    """
    target = pl.col("annotator_id") == _require_annotator(corpus, annotator_id)
    responses = _responses(corpus)
    own, others = responses.filter(target), responses.filter(~target)
    pairs = _join_pairs(own, others).with_columns(_drop_reason(relation).alias("reason"))
    kept = pairs.filter(pl.col("reason").is_null())
    preferences = (
        kept.join(_prompts(kept, task, annotator_id if tagged else None), on="item_id")
        .with_columns(
            _assistant_turn("response").alias("chosen"), _assistant_turn("rejected_response").alias("rejected")
        )
        .sort("item_id", "chosen_label", "rejected_annotator_id", "rejected_label")
    )
    drops = pairs.filter(pl.col("reason").is_not_null()).sort("item_id", "rejected_annotator_id", "reason")
    return (
        check_columns(preferences.select(list(PREFERENCES)), PREFERENCES, "preferences"),
        check_columns(drops.select(list(PAIR_DROPS)), PAIR_DROPS, "pair drops"),
    )


def _join_pairs(own: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Return every pairing of the target's responses with others' to the same item.

    A response of the target without any other beside it stays, with nulls on the rejected side.
    """
    identities = own.group_by("item_id").agg(pl.col("identity").alias("own_identities"))
    rejected = others.select(
        "item_id",
        pl.col("annotator_id").alias("rejected_annotator_id"),
        pl.col("label").alias("rejected_label"),
        pl.col("response").alias("rejected_response"),
        pl.col("identity").alias("rejected_identity"),
    )
    return (
        own.rename({"label": "chosen_label"})
        .join(rejected, on="item_id", how="left")
        .join(identities, on="item_id")
        .with_columns(
            pl.when(pl.col("chosen_label") == pl.col("rejected_label"))
            .then(pl.lit("same_label"))
            .otherwise(pl.lit("different_label"))
            .alias("relation")
        )
    )


def _drop_reason(relation: Relation) -> pl.Expr:
    """Return the reason a pair is dropped, null where it is kept."""
    excluded = pl.lit(False) if relation == "all" else pl.col("relation") != relation
    return (
        pl.when(pl.col("rejected_annotator_id").is_null())
        .then(pl.lit("no_other_annotator"))
        # A response the target also gave cannot be one to avoid, whichever of the target's stands opposite.
        .when(pl.col("rejected_identity").is_in(pl.col("own_identities")))
        .then(pl.lit("identical_response"))
        .when(excluded)
        .then(pl.lit("relation_excluded"))
        .otherwise(pl.lit(None, dtype=pl.String))
    )


def _responses(corpus: pl.DataFrame) -> pl.DataFrame:
    """Return the training and validation rows of `corpus` with `response` and its `identity` form."""
    rows = corpus.filter(pl.col("split").is_in(TRAINING_SPLITS))
    responses = [response_text(label, text) for label, text in rows.select("label", "explanation").iter_rows()]
    return rows.select("item_id", "text_a", "text_b", "annotator_id", "label", "split").with_columns(
        pl.Series("response", responses, dtype=pl.String),
        pl.Series("identity", [identity_form(response) for response in responses], dtype=pl.String),
    )


def _prompts(rows: pl.DataFrame, task: TaskSpec, annotator_tag: str | None) -> pl.DataFrame:
    """Return `item_id` and `prompt` of every item in `rows`."""
    items = rows.select("item_id", "text_a", "text_b").unique("item_id").sort("item_id")
    prompts = [
        build_prompt(task, text_a, text_b, annotator_tag=annotator_tag)
        for text_a, text_b in items.select("text_a", "text_b").iter_rows()
    ]
    return items.select("item_id", pl.Series("prompt", prompts, dtype=MESSAGES))


def _assistant_turn(column: str) -> pl.Expr:
    """Return a conversation of one turn: the assistant says what stands in `column`."""
    return pl.concat_list(pl.struct(pl.lit("assistant").alias("role"), pl.col(column).alias("content")))


def _require_annotator(corpus: pl.DataFrame, annotator_id: str) -> str:
    """Return `annotator_id` if the corpus, in any split, holds annotations of that person."""
    known = sorted(corpus["annotator_id"].unique().to_list())
    if annotator_id not in known:
        raise CorpusError(f"no annotator {annotator_id!r} in the corpus; known are {', '.join(known) or 'none'}")
    return annotator_id
