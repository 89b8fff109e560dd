"""What a step leaves behind is given back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tasks.memory import give_memory_back, returns_memory


class Model:
    """Something that refers to itself, as trained models do."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collected_by_hand() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collected_by_hand")
def test_models_in_cycles_are_freed() -> None:
    model = Model()
    found = weakref.ref(model)
    del model
    assert found() is not None
    give_memory_back()
    assert found() is None


@pytest.mark.usefixtures("collected_by_hand")
@pytest.mark.parametrize("fails", [False, True])
def test_a_body_leaves_no_model_behind(fails: bool) -> None:
    models: list[weakref.ref[Model]] = []

    def body(name: str) -> str:
        models.append(weakref.ref(Model()))
        assert models[-1]() is not None, "its cycle keeps it"
        if fails:
            raise ValueError(name)
        return name

    if fails:
        with pytest.raises(ValueError, match="sft"):
            returns_memory(body)("sft")
    else:
        assert returns_memory(body)("sft") == "sft"
    assert models[0]() is None


def test_libraries_are_spared_and_what_comes_after_them_is_not() -> None:
    returns_memory(lambda: None)()
    n_frozen = gc.get_freeze_count()
    assert n_frozen > 100_000, "torch and transformers alone are more"
    returns_memory(lambda: None)()
    assert gc.get_freeze_count() <= n_frozen, "frozen once"
