"""Whether the grouped layout may be used with a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from capo_core.errors import TrainingError
from capo_core.layout.obstacle import layout_obstacle
from capo_core.layout.prefix_tree import TokenGroup, lay_out
from capo_core.training.logps import hidden_dtype, score_responses

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Greatest mean difference per token between the grouped layout and the model's own forward pass."""


def check_layout(model: Any, group: TokenGroup) -> None:
    """Raise TrainingError unless this model gives responses beside one another the log-probabilities of each alone.

    Its configuration is looked at first; then one group is scored both ways, the second time by the model's own
    forward pass.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    obstacle = layout_obstacle(causal.config)
    advice = "set trainer: trl for this model"
    if obstacle is not None:
        raise TrainingError(
            f"{causal.config.model_type}: the grouped layout does not hold, because {obstacle}; {advice}"
        )
    head = causal.get_output_embeddings()
    if getattr(head, "bias", None) is not None or not isinstance(head, torch.nn.Linear):
        raise TrainingError(f"{causal.config.model_type}: its vocabulary head is not a plain frozen matrix; {advice}")
    model.eval()
    device, dtype = next(model.parameters()).device, hidden_dtype(model)
    with torch.no_grad():
        grouped = score_responses(model, lay_out([[group]]).to(device)).responses
        alone = torch.stack([_score_alone(model, group.prompt, response, device) for response in group.responses])
    n_tokens = sum(len(response) for response in group.responses)
    difference = float((grouped - alone).abs().sum()) / n_tokens
    if not difference <= _TOLERANCE[dtype]:
        raise TrainingError(
            f"{causal.config.model_type}: the grouped layout changes log-probabilities by {difference:.3g} per token; "
            f"{advice}"
        )


def _score_alone(model: Any, prompt: Sequence[int], response: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the response's log-probability by the model's own forward pass."""
    ids = torch.tensor([[*prompt, *response]], device=device)
    with torch.autocast(
        device.type, hidden_dtype(model), enabled=hidden_dtype(model) in (torch.bfloat16, torch.float16)
    ):
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logps = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    return logps.gather(1, ids[0, len(prompt) :, None]).sum()
