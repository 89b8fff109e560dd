"""The grouped layout: a prompt once, its responses beside one another, in one sequence.

    prompt prompt prompt │ a a a │ b b │ c c c c │ pad

A response token attends to the prompt and to earlier tokens of its own response; positions restart after the prompt.
Log-probabilities are therefore those of prompt + response alone, while the prompt is computed once.

Notation: B rows, L tokens per row with padding, N response tokens in all, R responses in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch

_STATE_SETTINGS = {"ssm_cfg", "state_size", "mamba_d_state", "linear_conv_kernel_dim", "conv_L_cache"}
_SCORE_SETTINGS = {
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
}


@dataclass(frozen=True)
class TokenGroup:
    """One prompt with its responses, as tokens."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]

    @property
    def n_tokens(self) -> int:
        """Length of the sequence that holds the group."""
        return len(self.prompt) + sum(len(response) for response in self.responses)


@dataclass(frozen=True, eq=False)
class GroupedBatch:
    """Tensors of several groups, one per row.

    Attributes:
        input_ids: (B, L).
        position_ids: (B, L); padding has position 0.
        attention_mask: (B, 1, L, L), additive: 0 where a token sees another, the dtype's minimum elsewhere.
        segment: (B, L): 0 in the prompt, 1 + index within the group in a response, -1 in padding.
        predictor: (N,) index into the flattened B · L of the token that predicts each response token.
        target: (N,) the response tokens.
        response: (N,) which of the R responses each belongs to, numbered over the batch.
        n_tokens: (R,) length of each response.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    segment: torch.Tensor
    predictor: torch.Tensor
    target: torch.Tensor
    response: torch.Tensor
    n_tokens: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on `device`."""
        return type(self)(**{f.name: getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)})


def lay_out(groups: Sequence[TokenGroup], dtype: torch.dtype, *, first_position: int = 0) -> GroupedBatch:
    """Return the tensors of the groups in their order; rows are padded on the right.

    Args:
        groups: at least one; prompts not empty, responses not empty.
        dtype: of the attention mask; must be that of the model's hidden states.
        first_position: position of the first prompt token, if a shared prefix comes before it.

    Raises:
        ValueError: if a prompt or a response is empty.
    """
    if any(not group.prompt or not all(group.responses) for group in groups):
        raise ValueError("prompts and responses must have at least one token")
    n_columns = max(group.n_tokens for group in groups)
    tokens: list[list[int]] = []
    positions: list[list[int]] = []
    segments: list[list[int]] = []
    predictor: list[int] = []
    target: list[int] = []
    lengths: list[int] = []
    for row, group in enumerate(groups):
        n_prompt = len(group.prompt)
        ids, places, parts = list(group.prompt), list(range(n_prompt)), [0] * n_prompt
        for index, response in enumerate(group.responses):
            start = row * n_columns + len(ids)
            predictor += [row * n_columns + n_prompt - 1, *range(start, start + len(response) - 1)]
            ids += response
            places += range(n_prompt, n_prompt + len(response))
            parts += [index + 1] * len(response)
            target += response
            lengths.append(len(response))
        n_pad = n_columns - len(ids)
        tokens.append(ids + [0] * n_pad)
        positions.append([first_position + place for place in places] + [0] * n_pad)
        segments.append(parts + [-1] * n_pad)
    segment = torch.tensor(segments)
    n_tokens = torch.tensor(lengths, dtype=torch.long)
    return GroupedBatch(
        input_ids=torch.tensor(tokens),
        position_ids=torch.tensor(positions),
        attention_mask=additive(visibility(segment), dtype),
        segment=segment,
        predictor=torch.tensor(predictor, dtype=torch.long),
        target=torch.tensor(target, dtype=torch.long),
        response=torch.repeat_interleave(torch.arange(len(lengths)), n_tokens),
        n_tokens=n_tokens,
    )


def visibility(segment: torch.Tensor) -> torch.Tensor:
    """Return which token sees which, (B, L, L) boolean: earlier ones of the prompt and of its own segment, and itself.

    Padding sees the prompt and earlier padding, so that no row of the mask is empty, and is seen by padding alone.
    """
    causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
    same = segment[:, :, None] == segment[:, None, :]
    return causal & (same | (segment == 0)[:, None, :])


def additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask (B, 1, Q, S) of a boolean (B, Q, S).

    A boolean 4-D mask would be added as 0 and 1 by eager attention: no error, wrong attention.
    """
    mask = torch.zeros(visible.shape, dtype=dtype)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def layout_obstacle(config: object) -> str | None:
    """Return why a model must not be used with this layout, or None if nothing in its configuration forbids it.

    A 4-D mask of our own replaces the model's: windows and capped scores would silently be lost, and layers that
    carry a state from token to token cannot keep responses apart at all.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config  # pyright: ignore[reportAttributeAccessIssue]
    settings = text.to_dict()  # pyright: ignore[reportAttributeAccessIssue]
    kinds = sorted({str(kind) for kind in settings.get("layer_types") or []} - {"full_attention"})
    if kinds:
        return f"it has layers of type {', '.join(kinds)}"
    if not settings.get("layer_types") and settings.get("sliding_window") and settings.get("use_sliding_window", True):
        return f"its attention has a sliding window of {settings['sliding_window']} tokens"
    stateful = sorted(_STATE_SETTINGS & set(settings))
    if stateful:
        return f"it has state-space or linear-attention layers (setting {stateful[0]})"
    if not settings.get("rope_parameters"):
        return "its positions are not rotary"
    for name in sorted(_SCORE_SETTINGS):
        if settings.get(name):
            return f"it changes scores or logits (setting {name})"
    return None
