"""What a published adapter calls its base model."""

from __future__ import annotations

import pytest

from capo_core.bundled_models import SMOLLM2_ID
from capo_core.errors import ReleaseError
from capo_core.release.base_model import name_base

COMMIT, DIGEST = "a" * 40, "b" * 64


def test_a_model_of_the_hub_keeps_its_id_and_gets_its_commit() -> None:
    base = name_base("Qwen/Qwen3-4B", COMMIT)
    assert (base.id, base.revision, base.note) == ("Qwen/Qwen3-4B", COMMIT, None)


def test_a_bundled_model_is_named_as_the_hub_does_and_the_difference_is_told() -> None:
    base = name_base(SMOLLM2_ID, f"{DIGEST}-1")
    assert (base.id, base.revision) == ("HuggingFaceTB/SmolLM2-135M-Instruct", None)
    assert base.note is not None
    assert "dequantised from the 4-bit file" in base.note


def test_a_folder_of_this_machine_needs_an_id_that_others_know() -> None:
    with pytest.raises(ReleaseError, match=r"/models/mine: .* with --base-model"):
        name_base("/models/mine", DIGEST)
    base = name_base("/models/mine", DIGEST, "us/mine")
    assert base.id == "us/mine"
    assert base.note is not None
    assert "whether those under this id are the same was not checked" in base.note
