"""Log-probabilities of responses: the vocabulary head at their positions only, in float32, never all logits at once.

Notation: N positions, D hidden size, V vocabulary size.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch

from capo_core.layout.attention import FOLDED
from capo_core.layout.prefix_tree import TreeBatch
from capo_core.layout.tree_attention import cut_into_blocks, see_by_blocks

_LOGITS_AT_ONCE = 2**22
"""Logits in memory at a time (16 MiB in float32)."""


class _HeadLogProbabilities(torch.autograd.Function):
    """log softmax(W h)[target] per position, in chunks of positions.

    With p = softmax(W h), the gradient towards h is (W[target] − Wᵀ p) times the incoming one. That vector is made
    while the chunk's logits are there, so the backward pass needs neither logits nor a second product with W. W is
    frozen and gets no gradient.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        rows = max(1, _LOGITS_AT_ONCE // weight.shape[0])
        # The same memory for every chunk: new pages would take longer than what is computed in them.
        shape = (min(rows, len(hidden)), weight.shape[0])
        products, logits = hidden.new_empty(shape, dtype=weight.dtype), hidden.new_empty(shape, dtype=wide)
        logps, slopes = [], []
        for states, wanted in zip(hidden.split(rows), target.split(rows), strict=True):
            product, logit = products[: len(states)], logits[: len(states)]
            logit.copy_(torch.mm(states, weight.T, out=product))
            greatest = logit.amax(dim=-1, keepdim=True)
            chosen = logit.gather(1, wanted[:, None])
            total = logit.sub_(greatest).exp_().sum(dim=-1, keepdim=True)
            logps.append((chosen - greatest - total.log())[:, 0])
            if ctx.needs_input_grad[0]:
                probabilities = torch.div(logit, total, out=product)
                slopes.append(weight[wanted] - probabilities @ weight)
        ctx.save_for_backward(torch.cat(slopes) if slopes else hidden.new_zeros(0))
        return torch.cat(logps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = ctx.saved_tensors
        return grad_outputs[0][:, None].to(slope.dtype) * slope, None, None


def head_logps(hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return log softmax(W h)[target] per position (N,), float32 or wider.

    Args:
        hidden: (N, D).
        weight: (V, D), frozen.
        target: (N,) token ids.
    """
    logps: Any = _HeadLogProbabilities.apply(hidden, weight, target)
    return logps


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of a batch: per response token (N,) and summed per response (R,)."""

    tokens: torch.Tensor
    responses: torch.Tensor


def score_responses(model: Any, batch: TreeBatch) -> Scores:
    """Return the log-probabilities that a model, with or without adapter, gives the batch's responses.

    Base weights in bfloat16 compute in bfloat16, the adapter's float32 parameters being cast for the products.

    Args:
        model: causal language model.
        batch: of one row, or several.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    with _half_precision(model, causal.dtype, batch.input_ids.device.type):
        states = causal.get_decoder()(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **_visibility(causal, batch)
        ).last_hidden_state
    return score_states(states, causal.get_output_embeddings().weight, batch)


def score_states(states: torch.Tensor, weight: torch.Tensor, batch: TreeBatch) -> Scores:
    """Return the log-probabilities of the batch's responses; what they have in common goes through the head once.

    Args:
        states: (…, D) hidden states of the batch's columns.
        weight: (V, D) of the head, in whose dtype it is computed.
        batch: what stands in the columns.
    """
    predicting = states.flatten(0, -2)[batch.predictor].to(weight.dtype)
    tokens = head_logps(predicting, weight, batch.target)[batch.scored]
    summed = tokens.new_zeros(len(batch.n_tokens)).index_add(0, batch.response, tokens)
    return Scores(tokens, summed)


def _visibility(causal: Any, batch: TreeBatch) -> dict[str, Any]:
    """Return the arguments that tell the model's attention which token sees which."""
    n_rows, n_columns = batch.end.shape
    attention = causal.config._attn_implementation
    if attention == FOLDED and n_rows == 1:
        return see_by_blocks(cut_into_blocks(batch.end[0], causal.dtype))
    if attention != "flex_attention":
        return {"attention_mask": batch.attention_mask(causal.dtype)}
    from torch.nn.attention.flex_attention import create_block_mask

    end = batch.end

    def sees(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (query < end[row, key])

    return {"attention_mask": create_block_mask(sees, n_rows, None, n_columns, n_columns, device=end.device)}


def hidden_dtype(model: Any) -> torch.dtype:
    """Return the dtype of the base model's weights and hidden states; an adapter's may be wider."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).dtype


def _half_precision(model: Any, dtype: torch.dtype, device: str) -> contextlib.AbstractContextManager:
    """Return the context in which float32 adapter parameters join bfloat16 activations without widening them."""
    stack = contextlib.ExitStack()
    if dtype in (torch.bfloat16, torch.float16):
        from peft.helpers import disable_input_dtype_casting

        stack.enter_context(torch.autocast(device, dtype))
        stack.enter_context(disable_input_dtype_casting(model))
    return stack
