"""The reference of preference optimisation: the log-probabilities of the adapter that training starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from capo_core.errors import TrainingError
from capo_core.training.collate import PreferenceGroup, make_part
from capo_core.training.logps import can_share_prefix, hidden_dtype, score_responses
from capo_core.training.objective import Objective, measure

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def add_reference_logps(model: Any, groups: Sequence[PreferenceGroup]) -> list[PreferenceGroup]:
    """Return the groups with the log-probability of each response under `model`.

    Computed once, in the layout and dtype of training: a pair of mixed ones moves the loss at the start.
    """
    model.eval()
    device, dtype = next(model.parameters()).device, hidden_dtype(model)
    known: dict[int, PreferenceGroup] = {}
    # Similar lengths together; the order given is kept in the result.
    order = sorted(range(len(groups)), key=lambda i: groups[i].n_tokens)
    with torch.no_grad():
        for start in range(0, len(order), 8):
            chunk = order[start : start + 8]
            part = make_part([groups[i] for i in chunk], dtype, share_prefix=can_share_prefix(model)).to(device)
            logps = iter(score_responses(model, part.layout, part.prefix).responses.tolist())
            for i in chunk:
                values = tuple(next(logps) for _ in groups[i].responses)
                known[i] = replace(groups[i], reference_logps=values)
    return [known[i] for i in range(len(groups))]


def check_start(model: Any, groups: Sequence[PreferenceGroup], beta: float) -> None:
    """Raise TrainingError unless policy and reference agree before the first step: every pair's loss is then log 2."""
    loss = measure(model, groups, Objective(preference_weight=1.0, sft_weight=0.0, beta=beta))["loss"]
    tolerance = _TOLERANCE[hidden_dtype(model)]
    if not abs(loss - math.log(2)) <= tolerance:
        raise TrainingError(
            f"policy and reference differ before the first step: loss {loss:.5f} instead of log 2 = 0.69315 "
            f"(tolerance {tolerance:g}); the reference was not computed from the adapter that training starts from"
        )
