"""What a step leaves behind is given back."""

from __future__ import annotations

import gc
import weakref

from tasks.memory import give_memory_back


class Model:
    """Something that refers to itself, as trained models do."""

    def __init__(self) -> None:
        self.itself = self


def test_models_in_cycles_are_freed() -> None:
    gc.disable()
    try:
        model = Model()
        found = weakref.ref(model)
        del model
        assert found() is not None
        give_memory_back()
        assert found() is None
    finally:
        gc.enable()
