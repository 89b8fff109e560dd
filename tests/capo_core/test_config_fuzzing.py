"""Every field of every configuration given what it must not take: a message with file, key and value, and no more."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from section_walk import walk_sections, wrong_values
from typer.testing import CliRunner

from capo_core.config_file import load_section, validate_section
from capo_core.errors import ConfigError
from schemas.config import ExperimentConfig, OrdinalLabels
from schemas.experiment import ExperimentMatrix, Recipe
from schemas.judge import LocalJudge, OpenAIJudge
from schemas.training import PairConfig

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
MATRIX = ROOT / "deployments" / "experiments" / "example.yaml"
# Sections that stand in lists or are one of several are walked on their own.
WHOLE = {"experiment": (ExperimentConfig, EXAMPLE), "matrix": (ExperimentMatrix, MATRIX)}
INNER: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "local judge": (LocalJudge, {"type": "local"}),
    "endpoint": (OpenAIJudge, {"type": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "m"}),
    "scores": (OrdinalLabels, {"type": "ordinal", "minimum": 0, "maximum": 5}),
    "recipe": (Recipe, {"set": {"capo.beta": 1}}),
    "pairs": (PairConfig, {}),
}
CASES = [
    pytest.param(section, path, place, value, id=f"{name}:{'.'.join(place)}:{number}")
    for name, (section, path) in WHOLE.items()
    for place, schema in walk_sections(section)
    for number, value in enumerate(wrong_values(schema))
]
INNER_CASES = [
    pytest.param(section, content, place, value, id=f"{name}:{'.'.join(place)}:{number}")
    for name, (section, content) in INNER.items()
    for place, schema in walk_sections(section)
    for number, value in enumerate(wrong_values(schema))
]


@lru_cache
def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _put(content: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for key in place[:-1]:
        content = content.setdefault(key, {})
    content[place[-1]] = value


def _refuse(section: type[BaseModel], content: dict[str, Any]) -> str:
    """Return the message that refuses what a file of this name would hold."""
    with pytest.raises(ConfigError) as caught:
        validate_section(content, section, (), "wrong.yaml")
    return str(caught.value)


def _check(section: type[BaseModel], content: dict[str, Any], place: tuple[str, ...]) -> None:
    said = _refuse(section, content)
    assert said.startswith("wrong.yaml: ")
    assert f"  {'.'.join(place)}" in said, said
    assert len(said) < 4000


@pytest.mark.parametrize(("section", "path", "place", "value"), CASES)
def test_a_wrong_value_is_refused_with_file_and_key(
    section: type[BaseModel], path: Path, place: tuple[str, ...], value: Any
) -> None:
    content = copy.deepcopy(_read(path))
    _put(content, place, value)
    _check(section, content, place)


@pytest.mark.parametrize(("section", "content", "place", "value"), INNER_CASES)
def test_a_wrong_value_in_an_inner_section_is_refused_with_its_key(
    section: type[BaseModel], content: dict[str, Any], place: tuple[str, ...], value: Any
) -> None:
    changed = copy.deepcopy(content)
    _put(changed, place, value)
    _check(section, changed, place)


@pytest.mark.parametrize(("section", "path"), WHOLE.values(), ids=WHOLE)
def test_a_key_that_no_section_has_is_named_with_those_it_has(section: type[BaseModel], path: Path) -> None:
    places = {place[:-1] for place, _ in walk_sections(section)}
    for place in sorted(places):
        content = copy.deepcopy(_read(path))
        _put(content, (*place, "no such key"), 1)
        said = _refuse(section, content)
        assert f"{'.'.join((*place, 'no such key'))}: unknown key; allowed here: " in said


def test_the_walk_reaches_every_part_of_the_configuration() -> None:
    found = {".".join(place) for place, _ in walk_sections(ExperimentConfig)}
    assert {"capo.beta", "task.name", "splits.train", "release.licence", "promotion.alpha", "seeds"} <= found
    written = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert {f"{name}.{key}" for name, part in written.items() if isinstance(part, dict) for key in part} <= {
        *found, "task.labels", *(f"task.labels.{key}" for key in ("type", "names"))
    }  # fmt: skip
    untested = {".".join(place) for place, schema in walk_sections(ExperimentConfig) if not wrong_values(schema)}
    assert untested == set()


TRICKS = {
    "tabs": ("name: a\n\tseeds: [1]\n", "line 2"),
    "a bomb of aliases": ("a: &a [x, x]\nb: &b [*a, *a]\nname: *b\n", "line 2: *a: write the value out"),
    "an alias to itself": ("name: &a [*a]\n", "line 1: *a: write the value out"),
    "a merged section": ("x: &x {name: a}\n<<: *x\n", "line 2: *x: write the value out"),
    "a tag that runs": ("name: !!python/object/apply:os.mkdir [executed]\n", "could not determine a constructor"),
    "a tag that makes an object": ("name: !!python/name:os.system\n", "could not determine a constructor"),
    "a tag that imports": ("name: !!python/module:antigravity\n", "could not determine a constructor"),
    "a doubled key": ("name: a\ncapo: {}\nname: b\n", "line 3: key 'name' is given twice"),
    "a doubled inner key": ("capo:\n  beta: 1\n  beta: 2\n", "line 3: key 'beta' is given twice"),
    "a number as a key": ("1: 2\n", "line 1: key 1 is no text"),
    "a list as a key": ("? [a]\n: 1\n", "line 1: key ['a'] is no text"),
    "nothing as a key": ("~: 1\n", "line 1: key None is no text"),
    "a set": ("seeds: !!set {a}\n", "seeds"),
    "bytes": ("name: !!binary aGVsbG8=\n", "wrong.yaml"),
    "a date that is none": ("name: 2001-99-99\n", "not valid YAML"),
    "a number of too many digits": (f"seeds: [{'9' * 6000}]\n", "not valid YAML"),
    "deep lists": ("name: " + "[" * 3000 + "]" * 3000, "not valid YAML"),
    "deep objects": ("name: " + '{"a": ' * 3000, "not valid YAML"),
    "two documents": ("name: a\n---\nname: b\n", "single document"),
    "another version": ("%YAML 9.9\n---\nname: a\n", "not valid YAML"),
    "nothing": ("", "must hold keys and values"),
    "a control character": ("name: \x01\n", "not valid YAML"),
    "the data": ("name: a\n" * 200_000, "is it the data?"),
    "many unknown keys": ("".join(f"k{n}: 1\n" for n in range(2000)), "more"),
}


@pytest.mark.parametrize(("content", "says"), TRICKS.values(), ids=TRICKS)
def test_tricks_of_yaml_are_refused_with_file_and_line(
    content: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content.encode())
    with pytest.raises(ConfigError) as caught:
        load_section(path, ExperimentConfig)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 8000
    assert not (tmp_path / "executed").exists()


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    content = EXAMPLE.read_text(encoding="utf-8")
    path = tmp_path / "small.yaml"
    path.write_text(content, encoding="utf-8")
    assert load_section(path, ExperimentConfig, ["capo.learning_rate=5e-5"]).capo.learning_rate == 5e-5


def test_an_override_that_gives_a_key_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set capo=.*key 'beta' is given twice"):
        load_section(EXAMPLE, ExperimentConfig, ["capo={beta: 1, beta: 2}"])


@pytest.mark.parametrize("command", ["run", "ingest", "train", "params", "doctor", "inbox", "experiment"])
def test_the_command_line_ends_with_two_and_no_traceback(command: str, tmp_path: Path) -> None:
    from deployments import cli

    path = tmp_path / "wrong.yaml"
    path.write_text("name: !!python/object/apply:os.mkdir [executed]\n", encoding="utf-8")
    done = CliRunner().invoke(cli.app, [command, str(path), "--set", "capo.beta=x"])
    assert isinstance(done.exception, ConfigError)  # which `main` turns into exit code 2 and one message
    assert "Traceback" not in done.output
