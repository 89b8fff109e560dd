"""One of the processes that share out a model: writes how much of it each holds to `<folder>/<rank>.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from capo_core.training.adapters import new_adapter
from capo_core.training.ranks import join_process_group, leave_process_group, own_rank
from schemas.artifacts import ModelRef
from schemas.training import AdapterConfig, ModelConfig


def count(parameters: Iterable[Any], *, own: bool) -> int:
    """Return the number of values, of this process's share or of all processes'."""
    return sum((p.to_local() if own and hasattr(p, "to_local") else p).numel() for p in parameters)


if __name__ == "__main__":
    join_process_group("cpu")
    ref = ModelRef(id="tiny", path=sys.argv[1], fingerprint="0" * 64)
    config = ModelConfig(id="tiny", dtype="float32", device="cpu")
    model: Any = new_adapter(ref, config, AdapterConfig(r=4, alpha=8.0), "grouped", fsdp=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.get_base_model().get_decoder().layers.parameters() if not p.requires_grad]
    found = {
        "trained": count(trained, own=True),
        "trained_in_all": count(trained, own=False),
        "frozen_in_layers": count(frozen, own=True),
        "frozen_in_layers_in_all": count(frozen, own=False),
    }
    (Path(sys.argv[2]) / f"{own_rank()}.json").write_text(json.dumps(found))
    leave_process_group()
