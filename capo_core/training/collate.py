"""From tables to groups of tokens, and from groups to the parts of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl
import torch

from capo_core.chat import encode_fitting_prompt, encode_response, end_of_turn_id
from capo_core.errors import TrainingError
from capo_core.grouped_layout import GroupedBatch, TokenGroup, lay_out
from schemas.config import OptimisationConfig
from schemas.frames import DEMONSTRATIONS, PREFERENCES, check_columns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PART_TOKENS = 2048
"""Tokens, padding included, in one forward pass; larger batches are split and their gradients added."""

MIN_SHARED_TOKENS = 16
"""Shorter common openings are not worth a pass of their own."""


@dataclass(frozen=True)
class PreferenceGroup(TokenGroup):
    """A prompt, the chosen response first, then the distinct rejected ones.

    Attributes:
        key: item, annotator and chosen label.
        rejected: per pair the index into `responses`; 0 if the rejected response is the chosen one, repeated where
            several annotators answered in the same words. Empty for supervised fine-tuning.
        reference_logps: log-probability of each response under the reference, once known.
    """

    key: tuple[str, ...]
    rejected: tuple[int, ...] = ()
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
            content.update(repr((group.key, group.prompt, group.responses, group.rejected)).encode())
        return content.hexdigest()


def encode_demonstrations(
    demonstrations: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, config: OptimisationConfig
) -> EncodedCorpus:
    """Return one group per demonstration, its only response the chosen one, by item, annotator and label.

    Args:
        demonstrations: DEMONSTRATIONS frame; the test split is left out.
        tokenizer: of the base model.
        config: token limits.

    Raises:
        TrainingError: if there is nothing to train on.
    """
    frame = check_columns(demonstrations, DEMONSTRATIONS, "demonstrations")
    rows = sorted(
        _by_split(frame).iter_rows(named=True), key=lambda r: (*_key(r, "label"), r["completion"][0]["content"])
    )
    groups = ((row["split"], _key(row, "label"), row["prompt"], row["completion"], []) for row in rows)
    return _encode(groups, tokenizer, config)


def encode_preferences(
    preferences: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, config: OptimisationConfig
) -> EncodedCorpus:
    """Return one group per item, annotator and chosen response, with all its rejected responses.

    Args:
        preferences: PREFERENCES frame; the test split is left out.
        tokenizer: of the base model.
        config: token limits.

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
        groups.append((rows[0]["split"], key[:3], rows[0]["prompt"], rows[0]["chosen"], rejected))
    return _encode(groups, tokenizer, config)


def _by_split(frame: pl.DataFrame) -> pl.DataFrame:
    kept = frame.filter(pl.col("split").is_in(["train", "validation"]))
    if kept.filter(pl.col("split") == "train").is_empty():
        raise TrainingError(f"no row of the train split among {frame.height}; nothing to train on")
    return kept


def _key(row: dict, label: str) -> tuple[str, str, str]:
    return row["item_id"], row["annotator_id"], row[label]


def _encode(
    groups: Iterable[tuple[str, tuple[str, ...], list[dict], list[dict], list[list[dict]]]],
    tokenizer: PreTrainedTokenizerBase,
    config: OptimisationConfig,
) -> EncodedCorpus:
    """Return the groups (split, key, prompt, chosen, rejected) as tokens, equal responses of a group once."""
    corpus = EncodedCorpus()
    end_of_turn = end_of_turn_id(tokenizer)
    for split, key, prompt, chosen, rejected in groups:
        prompt_ids, cut = encode_fitting_prompt(prompt, tokenizer, config.max_prompt_tokens)
        corpus.n_truncated_prompts += cut
        responses = [(*encode_response(turns[0]["content"], tokenizer), end_of_turn) for turns in (chosen, *rejected)]
        corpus.n_truncated_responses += sum(len(ids) > config.max_response_tokens for ids in set(responses))
        kept = [ids[: config.max_response_tokens] for ids in responses]
        distinct = list(dict.fromkeys(kept))
        places = tuple(distinct.index(ids) for ids in kept[1:])
        target = corpus.train if split == "train" else corpus.validation
        target.append(PreferenceGroup(prompt_ids, distinct, key, places))
    return corpus


@dataclass(frozen=True, eq=False)
class Part:
    """Some groups of a batch in one forward pass.

    Attributes:
        layout: their tokens, without the shared opening.
        chosen: (P,) index of each pair's chosen response among the part's responses.
        rejected: (P,) likewise.
        group: (P,) which group of the part a pair belongs to.
        first: (G,) index of each group's chosen response.
        is_chosen: (N,) whether a response token belongs to a chosen response.
        reference_logps: (R,) NaN where unknown.
        n_groups: G.
        n_chosen_tokens: tokens of chosen responses.
        prefix: the opening that all prompts of the part share and that is computed once; may be empty.
    """

    layout: GroupedBatch
    chosen: torch.Tensor
    rejected: torch.Tensor
    group: torch.Tensor
    first: torch.Tensor
    is_chosen: torch.Tensor
    reference_logps: torch.Tensor
    n_groups: int
    n_chosen_tokens: int
    prefix: tuple[int, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Part:
        """Return the part on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if hasattr(value, "to")}
        return replace(self, **moved)


def make_part(groups: Sequence[PreferenceGroup], dtype: torch.dtype, *, share_prefix: bool = False) -> Part:
    """Return the tensors of some groups.

    Args:
        groups: at least one.
        dtype: of the attention mask.
        share_prefix: whether the opening that the prompts have in common (the instruction) is laid out once.
    """
    prefix = common_opening([group.prompt for group in groups]) if share_prefix else ()
    own = [TokenGroup(group.prompt[len(prefix) :], group.responses) for group in groups]
    layout = lay_out(own, dtype, first_position=len(prefix))
    starts = [0]
    for group in groups:
        starts.append(starts[-1] + len(group.responses))
    pairs = [(starts[i], starts[i] + place, i) for i, group in enumerate(groups) for place in group.rejected]
    chosen, rejected, owner = (torch.tensor([p[j] for p in pairs], dtype=torch.long) for j in range(3))
    first = torch.tensor(starts[:-1], dtype=torch.long)
    is_chosen = torch.isin(layout.response, first)
    known = [value for g in groups for value in (g.reference_logps or [float("nan")] * len(g.responses))]
    wide = torch.promote_types(dtype, torch.float32)
    return Part(
        layout=layout,
        chosen=chosen,
        rejected=rejected,
        group=owner,
        first=first,
        is_chosen=is_chosen,
        reference_logps=torch.tensor(known, dtype=wide),
        n_groups=len(groups),
        n_chosen_tokens=int(is_chosen.sum()),
        prefix=prefix,
    )


def common_opening(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the tokens all prompts begin with, each keeping at least one; empty if too few to be worth it."""
    shortest = min(len(prompt) for prompt in prompts) - 1
    n_shared = next((i for i in range(shortest) if len({prompt[i] for prompt in prompts}) > 1), max(shortest, 0))
    return tuple(prompts[0][:n_shared]) if n_shared >= MIN_SHARED_TOKENS else ()


def split_into_parts(
    groups: Sequence[PreferenceGroup],
    dtype: torch.dtype,
    max_tokens: int = PART_TOKENS,
    *,
    share_prefix: bool = False,
) -> list[Part]:
    """Return the groups in as few parts as hold at most `max_tokens` padded tokens each, similar lengths together.

    A group longer than that has a part of its own.
    """
    return [make_part(chosen, dtype, share_prefix=share_prefix) for chosen in _fill(groups, max_tokens)]


def _fill(groups: Sequence[PreferenceGroup], max_tokens: int) -> list[list[PreferenceGroup]]:
    filled: list[list[PreferenceGroup]] = []
    for group in sorted(groups, key=lambda g: -g.n_tokens):
        # Sorted by falling length, the first of a part sets its width.
        if filled and (len(filled[-1]) + 1) * filled[-1][0].n_tokens <= max_tokens:
            filled[-1].append(group)
        else:
            filled.append([group])
    return filled
