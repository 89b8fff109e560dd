"""From tables to groups of tokens: what a prompt was answered with, the chosen response and the rejected ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from capo_core.chat import encode_fitting_prompt, encode_response, end_of_turn_id
from capo_core.errors import TrainingError
from capo_core.layout.prefix_tree import TokenGroup
from schemas.frames import DEMONSTRATIONS, PREFERENCES, check_columns
from schemas.training import TokenLimits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PreferenceGroup(TokenGroup):
    """A prompt, the chosen response first, then the distinct rejected ones.

    Attributes:
        key: item, annotator and chosen label.
        rejected: per pair the index into `responses`; 0 if the rejected response is the chosen one, repeated where
            several annotators answered in the same words. Empty for supervised fine-tuning.
        weights: per pair its share in the group's loss; they sum to 1.
        reference_logps: log-probability of each response under the reference, once known.
    """

    key: tuple[str, ...]
    rejected: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    reference_logps: tuple[float, ...] = ()


@dataclass
class EncodedCorpus:
    """Groups by split, and what had to be cut on the way."""

    train: list[PreferenceGroup] = field(default_factory=list)
    validation: list[PreferenceGroup] = field(default_factory=list)
    n_truncated_prompts: int = 0
    n_truncated_responses: int = 0

    def digest(self) -> str:
        """Return a digest of every token of every group, by which a checkpoint knows its data."""
        content = hashlib.sha256()
        for group in [*self.train, *self.validation]:
            content.update(repr((group.key, group.prompt, group.responses, group.rejected, group.weights)).encode())
        return content.hexdigest()


def encode_demonstrations(
    demonstrations: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, limits: TokenLimits
) -> EncodedCorpus:
    """Return one group per demonstration, its only response the chosen one, by item, annotator and label.

    Args:
        demonstrations: DEMONSTRATIONS frame; the test split is left out.
        tokenizer: of the base model.
        limits: of prompts and responses.

    Raises:
        TrainingError: if there is nothing to train on.
    """
    frame = check_columns(demonstrations, DEMONSTRATIONS, "demonstrations")
    rows = sorted(
        _by_split(frame).iter_rows(named=True), key=lambda r: (*_key(r, "label"), r["completion"][0]["content"])
    )
    groups = ((row["split"], _key(row, "label"), row["prompt"], row["completion"], [], []) for row in rows)
    return _encode(groups, tokenizer, limits)


def encode_preferences(
    preferences: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, limits: TokenLimits
) -> EncodedCorpus:
    """Return one group per item, annotator and chosen response, with all its rejected responses.

    Args:
        preferences: PREFERENCES frame; the test split is left out.
        tokenizer: of the base model.
        limits: of prompts and responses.

    Raises:
        TrainingError: if there is nothing to train on.
    """
    frame = check_columns(preferences, PREFERENCES, "preferences")
    found: dict[tuple[str, ...], list[dict]] = {}
    for row in _by_split(frame).iter_rows(named=True):
        found.setdefault((*_key(row, "chosen_label"), row["chosen"][0]["content"]), []).append(row)
    groups = []
    for key in sorted(found):
        rows = sorted(found[key], key=lambda r: (r["rejected_annotator_id"], r["rejected"][0]["content"]))
        rejected = [row["rejected"] for row in rows]
        weights = [row["weight"] for row in rows]
        groups.append((rows[0]["split"], key[:3], rows[0]["prompt"], rows[0]["chosen"], rejected, weights))
    return _encode(groups, tokenizer, limits)


def _by_split(frame: pl.DataFrame) -> pl.DataFrame:
    kept = frame.filter(pl.col("split").is_in(["train", "validation"]))
    if kept.filter(pl.col("split") == "train").is_empty():
        raise TrainingError(f"no row of the train split among {frame.height}; nothing to train on")
    return kept


def _key(row: dict, label: str) -> tuple[str, str, str]:
    return row["item_id"], row["annotator_id"], row[label]


def _encode(
    groups: Iterable[tuple[str, tuple[str, ...], list[dict], list[dict], list[list[dict]], list[float]]],
    tokenizer: PreTrainedTokenizerBase,
    limits: TokenLimits,
) -> EncodedCorpus:
    """Return the groups (split, key, prompt, chosen, rejected, weights) as tokens, equal responses of a group once."""
    corpus = EncodedCorpus()
    end_of_turn = end_of_turn_id(tokenizer)
    for split, key, prompt, chosen, rejected, weights in groups:
        prompt_ids, cut = encode_fitting_prompt(prompt, tokenizer, limits.max_prompt_tokens)
        corpus.n_truncated_prompts += cut
        responses = [(*encode_response(turns[0]["content"], tokenizer), end_of_turn) for turns in (chosen, *rejected)]
        corpus.n_truncated_responses += sum(len(ids) > limits.max_response_tokens for ids in set(responses))
        kept = [ids[: limits.max_response_tokens] for ids in responses]
        distinct = list(dict.fromkeys(kept))
        places = tuple(distinct.index(ids) for ids in kept[1:])
        target = corpus.train if split == "train" else corpus.validation
        shares = tuple(weight / sum(weights) for weight in weights)
        target.append(PreferenceGroup(prompt_ids, distinct, key, places, shares))
    return corpus
