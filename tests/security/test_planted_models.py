"""Model folders, adapters, checkpoints and registered versions that carry code: refused or read without running it."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapter_material import adapter_config, trained_adapter, write_adapter
from payloads import jinja_payload, module_source, pickled, torch_file
from served_material import make_adapter, make_recipe, register, store_adapter
from tiny_model import ADAPTER, FLOAT32, TASK, demonstrations, one_thread, save_tiny_model

from capo_core.bundled_models import ENCODER_ID
from capo_core.errors import ModelError
from capo_core.models import load_encoder, load_model, load_policy, load_tokenizer, resolve_model
from capo_core.prompts import build_prompt
from capo_core.training import checkpoints
from capo_core.training.sft import train_sft
from schemas.artifacts import ModelRef
from schemas.training import SFTConfig
from tasks import tracking
from tasks.registry import fetch_version

__all__ = ["one_thread"]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "model")
    return tmp_path / "model"


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _use(folder: Path, tmp_path: Path) -> None:
    """Load a model and its tokenizer and render a prompt, as answering does."""
    model = resolve_model(str(folder), cache_dir=tmp_path)
    load_model(model, "float32", "cpu", "sdpa")
    load_tokenizer(model).apply_chat_template(build_prompt(TASK, "a", "b"), add_generation_prompt=True)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json", "sub/config.json"])
def test_a_model_that_asks_for_code_of_its_own_is_refused(
    file: str, folder: Path, marker: Path, tmp_path: Path
) -> None:
    (folder / "evil.py").write_text(module_source(marker))
    (folder / file).parent.mkdir(exist_ok=True)
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    asked = {"AutoConfig": "evil.Model", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Model", None]}
    _change(folder / file, auto_map=asked, trust_remote_code=True)
    with pytest.raises(ModelError, match="asks for code of its own"):
        _use(folder, tmp_path)
    assert not marker.exists()


def test_weights_in_a_pickle_are_refused_and_not_read_beside_safetensors(
    folder: Path, marker: Path, tmp_path: Path
) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "tokenizer.pkl", "consolidated.00.pth"):
        (folder / name).write_bytes(torch_file(marker))
    _use(folder, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="Weights in pickles"):
        _use(folder, tmp_path)
    (folder / "model.safetensors").write_bytes(torch_file(marker))
    with pytest.raises(ModelError, match="cannot be loaded"):
        _use(folder, tmp_path)
    assert not marker.exists()


def test_a_chat_template_reaches_nothing_of_python(folder: Path, marker: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text(jinja_payload(marker))
    with pytest.raises(Exception, match=r"unsafe|undefined|not safely callable"):
        _use(folder, tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"modules": "evil.Model"},
        {"modules": "os.abort"},
        {"bert": {"model_args": {"trust_remote_code": True}, "tokenizer_args": {"trust_remote_code": True}}},
    ],
    ids=["a module of its own", "a function of Python", "arguments that trust it"],
)
def test_an_encoder_loads_no_class_but_the_librarys(
    changes: dict[str, Any], marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(resolve_model(ENCODER_ID, cache_dir=tmp_path).path, folder)
    (folder / "evil.py").write_text(module_source(marker))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    if "modules" in changes:
        modules = json.loads((folder / "modules.json").read_text())
        modules.append({"idx": len(modules), "name": str(len(modules)), "path": "", "type": changes["modules"]})
        (folder / "modules.json").write_text(json.dumps(modules))
    else:
        _change(folder / "sentence_bert_config.json", **changes["bert"])
        _change(folder / "config.json", auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(ModelError):
        load_encoder(resolve_model(str(folder), cache_dir=tmp_path))
    assert not marker.exists()


def test_an_adapter_in_a_pickle_is_refused_and_not_read_beside_safetensors(marker: Path, tmp_path: Path) -> None:
    tiny = save_tiny_model(tmp_path / "tiny")
    settings = adapter_config("lora")
    folder = write_adapter(trained_adapter(tiny, settings), settings, tiny, tmp_path / "adapter")
    (folder / "adapter_model.bin").write_bytes(torch_file(marker))
    (folder / "evil.py").write_text(module_source(marker))
    _change(folder / "adapter_config.json", auto_mapping={"base_model_class": "Model", "parent_library": "evil"})
    load_policy(tiny, FLOAT32, folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_config\.json and adapter_model\.safetensors"):
        load_policy(tiny, FLOAT32, folder)
    assert not marker.exists()


def _train(tiny: ModelRef, folder: Path) -> Any:
    return train_sft(
        demonstrations(), tiny, FLOAT32, ADAPTER, SFTConfig(n_epochs=3, batch_size=2, learning_rate=1e-2), seed=5,
        output_dir=folder / "out", checkpoint_dir=folder / "checkpoints",
    )  # fmt: skip


PICKLES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "adapter_model.bin", "scaler.pt")


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "under a forged seal"])
def test_a_planted_checkpoint_file_is_never_unpickled(name: str, sealed: bool, marker: Path, tmp_path: Path) -> None:
    """Whoever forges the seal too can spoil a run, not execute anything: transformers reads tensors alone."""
    tiny = save_tiny_model(tmp_path / "tiny")
    whole = _train(tiny, tmp_path)
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / name).write_bytes(torch_file(marker))
        if sealed:
            seal = json.loads((folder / checkpoints._SEAL).read_text())
            (folder / checkpoints._SEAL).write_text(json.dumps(seal | {"files": checkpoints._digests(folder)}))
    if sealed:
        with suppress(Exception):  # what it makes of the file depends on which it is
            _train(tiny, tmp_path)
    else:
        assert _train(tiny, tmp_path).n_steps == whole.n_steps
    assert not marker.exists()


def test_a_registered_version_with_a_loader_and_pickles_is_read_without_them(
    home: Path, marker: Path, tmp_path: Path
) -> None:
    """The version becomes one that `mlflow.pyfunc.load_model` would execute: a loader module, a cloudpickled model."""
    save_tiny_model(tmp_path / "tiny")
    tiny = resolve_model(str(tmp_path / "tiny"), cache_dir=tmp_path)
    ref = store_adapter(make_adapter(tiny, "lora", 1, tmp_path / "adapter"))
    version = register(make_recipe(tiny, "ada", ["ada"], ref))
    client = tracking.tracking_client()
    planted = tmp_path / "planted"
    planted.mkdir()
    flavour = {"loader_module": "evil", "code": "code", "python_model": "python_model.pkl", "cloudpickle_version": "3"}
    (planted / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": flavour}}))
    (planted / "python_model.pkl").write_bytes(pickled(marker))
    (planted / "code").mkdir()
    (planted / "code" / "evil.py").write_text(module_source(marker))
    client.log_model_artifacts(version.model_id, str(planted))
    assert fetch_version(version).adapter == ref
    assert not marker.exists()
