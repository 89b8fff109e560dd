"""Configurations: what ships loads; what is wrong is named with file, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from capo_core.config_file import load_config, to_yaml
from capo_core.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
SHIPPED = sorted((ROOT / "deployments" / "configs").glob("*/*.yaml"))
EXAMPLE = ROOT / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_shipped_configuration_loads_and_survives_its_yaml_form(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(again) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_shipped_configuration_names_every_field(path: Path) -> None:
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert _absent(written, load_config(path).model_dump(mode="json")) == []


def _absent(written: dict, whole: dict, prefix: str = "") -> list[str]:
    """Return the dotted keys of `whole` that `written` leaves to defaults."""
    absent = [f"{prefix}{key}" for key in whole if key not in written]
    for key in written.keys() & whole.keys():
        if isinstance(whole[key], dict):
            absent += _absent(written[key], whole[key], f"{prefix}{key}.")
    return absent


def test_configurations_ship_for_both_corpora_and_three_models() -> None:
    names = {(path.parent.name, path.stem) for path in SHIPPED}
    models = ("smollm2-135m", "qwen3-4b", "llama-3.2-3b")
    assert {(corpus, model) for corpus in ("varierr", "paraphrase") for model in models} <= names


@pytest.mark.parametrize(
    ("override", "key", "allowed"),
    [
        ("capo.betta=1", "capo.betta", "batch_size, beta, "),
        ("nope=1", "nope", "adapter, batches, capo, convergence, corpus"),
        ("judge.backends=[{type: openai, foo: 1}]", "judge.backends.0.openai.foo", "base_url"),
        ("task.labels.minimum=1", "task.labels.nominal.minimum", "names, type"),
        ("capo.beta=-1", "capo.beta", "greater than 0"),
        ("corpus.format=xml", "corpus.format", "'varierr', 'lewidi' or 'table'"),
        (
            "generation.methods=[sft, rlhf]",
            "generation.methods.1",
            "'history', 'profile', 'sft' or 'capo'",
        ),
        ("splits.train=0.9", "splits", "must be 1"),
        ("seeds=[1, 1]", "(whole file)", "seeds must differ"),
        ("generation.methods=[zero_shot]", "(whole file)", "which generation.methods does not produce"),
        ("name=../etc", "name", "match pattern"),
    ],
)
def test_a_wrong_value_is_named_with_file_key_and_what_is_allowed(override: str, key: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(EXAMPLE, [override])
    message = str(caught.value)
    assert str(EXAMPLE) in message
    assert f"{key}:" in message
    assert allowed in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text("name: part\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"(?s)part\.yaml.*task: required but missing.*model: required but missing"):
        load_config(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name: [unclosed", "not valid YAML"),
        ("- just\n- a list\n", "must hold keys and values"),
        ("name: a\nname: b\n", "line 2: key 'name' is given twice"),
        ("name: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(path)
    assert "broken.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("override", ["capo.beta", "=1", "name.x.y=1", "capo.beta=[1"])
def test_an_override_that_cannot_be_applied_says_how_to_write_it(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(EXAMPLE, [override])


def test_overrides_apply_in_order() -> None:
    assert load_config(EXAMPLE, ["capo.beta=0.3", "capo.beta=0.4"]).capo.beta == 0.4
