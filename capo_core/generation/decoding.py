"""Reading many prompts at once, before decoding: what they have in common is computed once.

The opening shared by all prompts is read by itself; then the rest of each prompt together with every label's opening of
a response, as prefix trees in one row, so that prompts of one item share its text and nothing is padded.

Notation: P tokens in the shared opening, B prompts, L columns of their trees, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from capo_core.layout.attention import SharedPrefix
from capo_core.layout.prefix_tree import TokenGroup, TreeBatch, count_shared, lay_out
from capo_core.layout.tree_attention import cut_into_blocks, see_by_blocks
from capo_core.training.logps import score_states

_PREFIX_STEP = 512
"""Tokens of a shared opening computed at a time, which bounds the memory for attention scores."""


@dataclass(frozen=True, eq=False)
class ReadPrompts:
    """Prompts and their openings as the model has read them.

    Attributes:
        columns: per prompt the columns of its tokens, and of its tokens followed by each opening.
        opening_logps: (B, openings per prompt) log-probabilities summed over the tokens in which openings differ.
        states: (L, D) hidden states.
        cache: keys and values of the shared opening and, after it, of the L columns.
        n_prefix: tokens of the shared opening.
    """

    columns: Sequence[tuple[list[int], list[list[int]]]]
    opening_logps: torch.Tensor
    states: torch.Tensor
    cache: Cache
    n_prefix: int

    def before(self, prompt: int, opening: int | None) -> list[int]:
        """Return the columns of what comes before the continuation of a prompt, opened in one of the ways or not."""
        alone, opened = self.columns[prompt]
        return alone if opening is None else opened[opening]


def read_prefix(model: Any, tokens: Sequence[int]) -> SharedPrefix | None:
    """Return the keys and values of an opening shared by several prompts, or None if it is empty.

    Args:
        model: causal language model with folded attention.
        tokens: the opening, from the very first token on.
    """
    prefix: SharedPrefix | None = None
    for start in range(0, len(tokens), _PREFIX_STEP):
        batch = lay_out([[TokenGroup(tokens[start : start + _PREFIX_STEP], ())]], first_position=start)
        _, cache = _read(model, batch.to(model.device), prefix)
        layers: list[Any] = cache.layers
        prefix = [(layer.keys[0], layer.values[0]) for layer in layers]
    return prefix


def read_prompts(
    model: Any, prompts: Sequence[Sequence[int]], openings: Sequence[Sequence[int]], prefix: SharedPrefix | None
) -> ReadPrompts:
    """Return the state of the model after each prompt and each opening, and the openings' log-probabilities.

    Args:
        model: causal language model with folded attention.
        prompts: the tokens after the shared opening, at least one each; at least two if there are no openings.
        openings: ways to begin a response, the same for every prompt: at least two, or none.
        prefix: of `read_prefix`.
    """
    groups = [_group(prompt, openings) for prompt in prompts]
    batch = lay_out([groups], first_position=_length(prefix)).to(model.device)
    states, cache = _read(model, batch, prefix)
    n_each = max(1, len(openings))
    paths = [batch.paths[i : i + n_each] for i in range(0, len(batch.paths), n_each)]
    columns = [(own[0][: len(prompt)], list(own)) for prompt, own in zip(prompts, paths, strict=True)]
    logps = states.new_zeros(0, dtype=torch.float32)
    if openings:
        # In bfloat16 a logit of 16 is rounded to the next eighth, and labels would tie.
        logps = score_states(states, model.get_output_embeddings().weight.float(), batch).responses
    return ReadPrompts(columns, logps.view(len(prompts), len(openings)), states, cache, _length(prefix))


def _group(prompt: Sequence[int], openings: Sequence[Sequence[int]]) -> TokenGroup:
    """Return a prompt with its openings, what they begin with in common closing the prompt: it is not scored."""
    if not openings:
        return TokenGroup(prompt[:-1], [prompt[-1:]])  # the layout tells where responses stand
    n_common = count_common(openings)
    return TokenGroup([*prompt, *openings[0][:n_common]], [opening[n_common:] for opening in openings])


def _read(model: Any, batch: TreeBatch, prefix: SharedPrefix | None) -> tuple[torch.Tensor, Cache]:
    """Return the hidden states (L, D) of one row of trees after a shared prefix, and keys and values of both."""
    n_prefix = _length(prefix)
    blocks = cut_into_blocks(batch.end[0], model.dtype)
    if prefix is None:
        cache: Cache = DynamicCache()
    else:
        cache = Cache(layers=[_past(keys, values) for keys, values in prefix])
        every = torch.arange(n_prefix, device=batch.end.device)
        blocks = [
            replace(
                block,
                keys=torch.cat([every, block.keys + n_prefix]),
                mask=torch.nn.functional.pad(block.mask, (n_prefix, 0)),
            )
            for block in blocks
        ]
    states = model.get_decoder()(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        past_key_values=cache,
        use_cache=True,
        **see_by_blocks(blocks),
    ).last_hidden_state[0]
    return states, cache


def _past(keys: torch.Tensor, values: torch.Tensor) -> DynamicLayer:
    layer = DynamicLayer()
    layer.lazy_initialization(keys[None], values[None])
    layer.keys, layer.values = keys[None], values[None]
    return layer


def _length(prefix: SharedPrefix | None) -> int:
    return 0 if prefix is None else prefix[0][0].shape[1]


def count_common(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all sequences share; each keeps at least one of its own."""
    # Between the least and the greatest in lexicographic order lie all others.
    shared = count_shared(min(map(list, sequences)), max(map(list, sequences)))
    return min(shared, min(map(len, sequences)) - 1)
