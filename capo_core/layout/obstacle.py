"""Which models a prefix tree may not be used with."""

from __future__ import annotations

_STATE_SETTINGS = {"ssm_cfg", "state_size", "mamba_d_state", "linear_conv_kernel_dim", "conv_L_cache"}
_SCORE_SETTINGS = {
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
}


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
