"""The reference of preference optimisation: the log-probabilities of the adapter that training starts from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from capo_core.errors import TrainingError
from capo_core.models import load_tokenizer
from capo_core.progress import Progress, silent
from capo_core.quiet import quiet_libraries
from capo_core.training.adapters import open_adapter
from capo_core.training.batch import gather_families, split_into_parts
from capo_core.training.collate import PreferenceGroup, encode_preferences
from capo_core.training.logps import hidden_dtype, score_responses
from capo_core.training.objective import Objective, measure
from schemas.artifacts import ModelRef
from schemas.frames import REFERENCE, check_columns
from schemas.training import AdapterConfig, ModelConfig, TokenLimits

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def compute_reference(
    preferences: pl.DataFrame,
    model: ModelRef,
    model_config: ModelConfig,
    adapter: AdapterConfig,
    limits: TokenLimits,
    *,
    sft_adapter_dir: Path,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Return the log-probability of every distinct prompt and response of the preferences under the SFT adapter.

    In the layout and dtype of training: a pair of mixed ones moves the loss at the start.

    Args:
        preferences: PREFERENCES frame, of one target annotator or of several.
        model: base model.
        model_config: dtype and device.
        adapter: settings of the SFT adapter.
        limits: token limits of training.
        sft_adapter_dir: folder of the adapter.
        progress: called with the groups scored and the groups in all.

    Returns:
        REFERENCE frame by sequence_id.

    Raises:
        ModelError: if the model or the SFT adapter cannot be loaded.
    """
    corpus = encode_preferences(preferences, load_tokenizer(model), limits)
    with quiet_libraries():
        scored = open_adapter(model, model_config, adapter, sft_adapter_dir, "grouped")
    return score_groups(scored, [*corpus.train, *corpus.validation], limits.max_tokens_per_pass, progress)


def score_groups(
    model: Any, groups: Sequence[PreferenceGroup], max_tokens: int, progress: Progress = silent
) -> pl.DataFrame:
    """Return the REFERENCE frame of the groups' responses under `model`."""
    model.eval()
    device = next(model.parameters()).device
    rows: dict[str, tuple[str, int, float]] = {}
    n_done = 0
    with torch.no_grad():
        for part in split_into_parts(gather_families(groups), hidden_dtype(model), max_tokens):
            moved = part.to(device)
            logps = iter(score_responses(model, moved.layout).responses.tolist())
            for group in part.groups:
                for response in group.responses:
                    name = identify_sequence(group.prompt, response)
                    rows[name] = (name, len(response), next(logps))
            n_done += len(part.groups)
            progress(n_done, len(groups))
    frame = pl.DataFrame([rows[name] for name in sorted(rows)], schema=REFERENCE, orient="row")
    return check_columns(frame, REFERENCE, "reference")


def identify_sequence(prompt: Sequence[int], response: Sequence[int]) -> str:
    """Return a digest of a prompt's and a response's tokens."""
    return hashlib.sha256(json.dumps([list(prompt), list(response)]).encode()).hexdigest()


def add_reference_logps(groups: Sequence[PreferenceGroup], reference: pl.DataFrame) -> list[PreferenceGroup]:
    """Return the groups with the reference log-probability of each response.

    Args:
        groups: of `encode_preferences`.
        reference: REFERENCE frame.

    Raises:
        TrainingError: if the frame lacks a response.
    """
    known = dict(check_columns(reference, REFERENCE, "reference").select("sequence_id", "logp").iter_rows())
    added = []
    for group in groups:
        names = [identify_sequence(group.prompt, response) for response in group.responses]
        if not known.keys() >= set(names):
            raise TrainingError(
                f"the reference has no log-probability of a response to item {group.key[0]} of {group.key[1]}; it was "
                "computed from other preferences or token limits, compute it again"
            )
        added.append(replace(group, reference_logps=tuple(known[name] for name in names)))
    return added


def check_start(model: Any, groups: Sequence[PreferenceGroup], max_tokens: int) -> None:
    """Raise TrainingError unless policy and reference agree before the first step.

    The sigmoid loss of every pair is then log 2, whatever loss training minimises.
    """
    objective = Objective(loss="sigmoid", sft_weight=0.0)
    loss = measure(model, split_into_parts(gather_families(groups), hidden_dtype(model), max_tokens), objective)["loss"]
    tolerance = _TOLERANCE[hidden_dtype(model)]
    if not abs(loss - math.log(2)) <= tolerance:
        raise TrainingError(
            f"policy and reference differ before the first step: loss {loss:.5f} instead of log 2 = 0.69315 "
            f"(tolerance {tolerance:g}); the reference was not computed from the adapter that training starts from"
        )
