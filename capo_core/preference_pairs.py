"""What adapters are trained on: the target's own responses, and those preferred over the other annotators'.

Paper (arXiv 2605.28802): a target annotator's label-explanation response is preferred over the other annotators'
valid responses to the same input. Which negatives count is not stated there; `PairConfig` makes it a choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.pair_weights import weigh_pairs
from capo_core.prompts import AnnotatorTag, build_prompt, response_text
from capo_core.text import identity_form
from capo_core.validity import measure_validity
from schemas.config import TaskSpec
from schemas.frames import DEMONSTRATIONS, PAIR_DROPS, PREFERENCES, check_columns
from schemas.frames.training import MESSAGES
from schemas.section import PairStrategy, TagPosition
from schemas.training import PairConfig

if TYPE_CHECKING:
    from capo_core.stylometry.reduction import Embed

TRAINING_SPLITS = ("train", "validation")
RANKED_STRATEGIES: tuple[PairStrategy, ...] = ("nearest", "farthest")
"""Strategies that need a sentence encoder."""

_SIMILARITY_DECIMALS = 6
"""Cosines that agree to this many decimals are tied: an encoder's rounding varies with what else is in a batch."""


def build_demonstrations(
    corpus: pl.DataFrame, annotator_id: str, task: TaskSpec, *, tag: TagPosition | None
) -> pl.DataFrame:
    """Return the target's annotations as conversations to imitate; test never enters.

    Args:
        corpus: a `CORPUS` frame.
        annotator_id: the target.
        task: the task asked.
        tag: where the prompt names the annotator, for an adapter shared by several; None names nobody.

    Returns:
        `DEMONSTRATIONS` sorted by item_id, label.

    Raises:
        CorpusError: if the corpus has no such annotator.
    """
    own = _responses(corpus).filter(pl.col("annotator_id") == _require_annotator(corpus, annotator_id))
    demonstrations = (
        own.join(_prompts(own, task, AnnotatorTag(annotator_id, tag) if tag else None), on="item_id")
        .with_columns(_assistant_turn("response").alias("completion"))
        .sort("item_id", "label")
    )
    return check_columns(demonstrations.select(list(DEMONSTRATIONS)), DEMONSTRATIONS, "demonstrations")


def build_preferences(
    corpus: pl.DataFrame,
    annotator_id: str,
    task: TaskSpec,
    pairs: PairConfig,
    *,
    tag: TagPosition | None,
    embed: Embed | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return each of the target's responses preferred over others' to the same item, and the pairs dropped.

    Strategies: `all` other responses are rejected; `same_label` and `different_label` only those whose label is, or is
    not, the chosen one's; `nearest` and `farthest` for each chosen response only the one whose explanation is most,
    or least, like its own by the cosine of their embeddings, ties going to the annotator, then the label, first by
    name.

    Drops, in the order in which they are decided: `no_other_annotator` (one row per annotation of the target that
    nobody else's stands beside), `identical_response` (the rejected response is, in identity form, one of the target's
    own to the item), `judged_invalid` (see `min_validity`), `relation_excluded` (the labels are not as the strategy
    asks), `not_nearest`, `not_farthest` (of the pairs left, another is nearer or farther). Test never enters either
    table.

    Args:
        corpus: a `CORPUS` frame.
        annotator_id: the target, author of every chosen response.
        task: the task asked.
        pairs: the strategy; `min_validity`: the share of an explanation's second-round judgements (all that there
            are, the author's own included) that must say it makes sense for it to be rejected. An explanation without
            judgements is not known to be invalid and is kept; and `weighting`: what a pair counts among those kept for
            the same chosen response (`pair_weights.weigh_pairs`).
        tag: where the prompt names the annotator, for an adapter shared by several; None names nobody.
        embed: sentence encoder, n texts to [n, d]; only `nearest` and `farthest` use it.

    Returns:
        `PREFERENCES` sorted by item_id, chosen_label, rejected_annotator_id, rejected_label, and `PAIR_DROPS`
        sorted by item_id, rejected_annotator_id, reason.

    Raises:
        CorpusError: if the corpus has no such annotator, or weights by style find no style feature that varies.
        ConfigError: if `min_validity` is set, or weights by validity are, and the corpus holds no judgements.
        ValueError: if the strategy needs an encoder and there is none.
    """
    target = pl.col("annotator_id") == _require_annotator(corpus, annotator_id)
    responses = _responses(corpus)
    own, others = responses.filter(target), responses.filter(~target)
    joined = _join_pairs(own, others).with_columns(_drop_reason(pairs.strategy).alias("reason"))
    if pairs.min_validity is not None:
        validity = measure_validity(responses["metadata"], "pairs.min_validity is set", "null")
        joined = _drop_invalid(joined, validity, pairs.min_validity)
    if pairs.strategy in RANKED_STRATEGIES:
        joined = _keep_one_per_choice(joined, pairs.strategy, embed)
    kept = joined.filter(pl.col("reason").is_null())
    kept = kept.with_columns(weigh_pairs(kept, pairs, responses))
    preferences = (
        kept.join(_prompts(kept, task, AnnotatorTag(annotator_id, tag) if tag else None), on="item_id")
        .with_columns(
            _assistant_turn("response").alias("chosen"), _assistant_turn("rejected_response").alias("rejected")
        )
        .sort("item_id", "chosen_label", "rejected_annotator_id", "rejected_label", "response", "rejected_response")
    )
    drops = joined.filter(pl.col("reason").is_not_null()).sort("item_id", "rejected_annotator_id", "reason")
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
        pl.col("explanation").alias("rejected_explanation"),
        pl.col("response").alias("rejected_response"),
        pl.col("identity").alias("rejected_identity"),
        pl.col("metadata").alias("rejected_metadata"),
    )
    return (
        own.rename({"label": "chosen_label"})
        .join(rejected, on="item_id", how="left")
        .join(identities, on="item_id")
        .with_columns(
            pl.when(pl.col("chosen_label") == pl.col("rejected_label"))
            .then(pl.lit("same_label"))
            .otherwise(pl.lit("different_label"))
            .alias("relation"),
            pl.lit(None, dtype=pl.Float64).alias("similarity"),
        )
    )


def _drop_reason(strategy: PairStrategy) -> pl.Expr:
    """Return the reason a pair is dropped by what its two responses are, null where it is kept."""
    by_relation = strategy in ("same_label", "different_label")
    return (
        pl.when(pl.col("rejected_annotator_id").is_null())
        .then(pl.lit("no_other_annotator"))
        # A response the target also gave cannot be one to avoid, whichever of the target's stands opposite.
        .when(pl.col("rejected_identity").is_in(pl.col("own_identities")))
        .then(pl.lit("identical_response"))
        .when(pl.col("relation") != strategy if by_relation else pl.lit(False))
        .then(pl.lit("relation_excluded"))
        .otherwise(pl.lit(None, dtype=pl.String))
    )


def _drop_invalid(pairs: pl.DataFrame, validity: pl.DataFrame, min_validity: float) -> pl.DataFrame:
    """Return `pairs` with the reason `judged_invalid` where the rejected explanation's share is below the minimum."""
    is_open = pl.col("reason").is_null() | (pl.col("reason") == "relation_excluded")
    return pairs.join(validity, left_on="rejected_metadata", right_on="metadata", how="left").with_columns(
        pl.when(is_open & (pl.col("validity") < min_validity))
        .then(pl.lit("judged_invalid"))
        .otherwise("reason")
        .alias("reason")
    )


def _keep_one_per_choice(pairs: pl.DataFrame, strategy: PairStrategy, embed: Embed | None) -> pl.DataFrame:
    """Return `pairs` with their `similarity`, and all but the most (or least) similar of each choice dropped."""
    if embed is None:
        raise ValueError(f"pair strategy {strategy!r} compares embeddings: give a sentence encoder as embed=")
    is_open = pl.col("reason").is_null()
    open_pairs, dropped = pairs.filter(is_open), pairs.filter(~is_open)
    similarity = _cosines(open_pairs["explanation"], open_pairs["rejected_explanation"], embed)
    choice = ["item_id", "chosen_label", "response"]
    ranked = open_pairs.with_columns(similarity).sort(
        *choice, "similarity", "rejected_annotator_id", "rejected_label", "rejected_response",
        descending=[False] * len(choice) + [strategy == "nearest"] + [False] * 3, nulls_last=True,
    )  # fmt: skip
    is_first = pl.int_range(pl.len()).over(choice) == 0
    reason = pl.when(is_first).then(pl.lit(None, dtype=pl.String)).otherwise(pl.lit(f"not_{strategy}"))
    return pl.concat([ranked.with_columns(reason.alias("reason")), dropped])


def _cosines(one: pl.Series, other: pl.Series, embed: Embed) -> pl.Series:
    """Return `similarity`, the cosine of each text's embedding to the other's; null for a vector of length 0."""
    texts = pl.concat([one, other.rename(one.name)]).unique().sort().to_list()
    if not texts:
        return pl.Series("similarity", [], dtype=pl.Float64)
    vectors = np.asarray(embed(texts), dtype=float)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.full_like(vectors, np.nan), where=lengths > 0)
    places = {text: place for place, text in enumerate(texts)}
    rows = [units[[places[text] for text in series]] for series in (one, other)]
    cosines = np.round((rows[0] * rows[1]).sum(axis=1), _SIMILARITY_DECIMALS)
    return pl.Series("similarity", cosines, dtype=pl.Float64).fill_nan(None)


def _responses(corpus: pl.DataFrame) -> pl.DataFrame:
    """Return the training and validation rows of `corpus` with `response` and its `identity` form."""
    rows = corpus.filter(pl.col("split").is_in(TRAINING_SPLITS))
    responses = [response_text(label, text) for label, text in rows.select("label", "explanation").iter_rows()]
    columns = ["item_id", "text_a", "text_b", "annotator_id", "label", "explanation", "split", "metadata"]
    return rows.select(columns).with_columns(
        pl.Series("response", responses, dtype=pl.String),
        pl.Series("identity", [identity_form(response) for response in responses], dtype=pl.String),
    )


def _prompts(rows: pl.DataFrame, task: TaskSpec, tag: AnnotatorTag | None) -> pl.DataFrame:
    """Return `item_id` and `prompt` of every item in `rows`."""
    items = rows.select("item_id", "text_a", "text_b").unique("item_id").sort("item_id")
    prompts = [
        build_prompt(task, text_a, text_b, tag=tag) for text_a, text_b in items.select("text_a", "text_b").iter_rows()
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
