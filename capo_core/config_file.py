"""Configurations as YAML files: read, overridden, validated, with errors that name file and key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from capo_core.errors import ConfigError
from schemas.config import ExperimentConfig

SectionT = TypeVar("SectionT", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error instead of the last one winning."""


def _construct_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            line = node.value[number][0].start_mark.line + 1
            raise ConfigError(f"line {line}: key {key!r} is given twice")
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Return the validated configuration of a YAML file.

    Args:
        path: the file.
        overrides: `dotted.key=value` each, the value in YAML, applied over the file in order.

    Raises:
        ConfigError: names the file, each wrong key and what is allowed there.
    """
    return load_section(path, ExperimentConfig, overrides)


def load_section(path: Path, section: type[SectionT], overrides: Sequence[str] = ()) -> SectionT:
    """Return a YAML file as the section it holds; arguments and errors as of `load_config`."""
    return validate_section(_read_yaml(path), section, overrides, str(path))


def validate_section(
    content: dict[str, Any], section: type[SectionT], overrides: Sequence[str], source: str
) -> SectionT:
    """Return plain `content` with `overrides` applied to it as a section.

    Args:
        content: what a YAML file holds; changed in place.
        section: the model it must fit.
        overrides: as of `load_config`.
        source: what error messages call the content.

    Raises:
        ConfigError: names the source, each wrong key and what is allowed there.
    """
    for override in overrides:
        _apply_override(content, override)
    try:
        return section.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_describe(error, source, section)) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {reason}; name a YAML file as in deployments/configs/") from error
    try:
        content = yaml.load(text, _UniqueKeyLoader)
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold keys and values, holds {type(content).__name__}")
    return content


def _apply_override(content: dict[str, Any], override: str) -> None:
    """Set one dotted key in place."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: write it as dotted.key=value, e.g. capo.beta=0.2")
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        child = section.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent!r} is not a section")
        section = child
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {error}") from error


def _describe(error: ValidationError, source: str, section: type[BaseModel]) -> str:
    """Return one line per problem: file, key, what is wrong and what is allowed."""
    lines = [f"{source}: {error.error_count()} problem(s)"]
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
        if problem["type"] == "extra_forbidden":
            allowed = ", ".join(_allowed_keys(problem["loc"], section))
            lines.append(f"  {key}: unknown key; allowed here: {allowed}")
        elif problem["type"] == "missing":
            lines.append(f"  {key}: required but missing")
        else:
            lines.append(f"  {key}: {problem['msg']} (found {_shorten(problem['input'])})")
    return "\n".join(lines)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed_keys(location: Sequence[int | str], section: type[BaseModel]) -> list[str]:
    """Return the keys of the part of `section` in which an unknown key stood."""
    models: list[type[BaseModel]] = [section]
    for part in location[:-1]:
        fields = [field for model in models for name, field in model.model_fields.items() if name == part]
        tagged = [model for model in models if _tag_of(model) == part]
        models = [model for field in fields for model in _models_in(field.annotation)] or tagged or models
    return sorted({name for model in models for name in model.model_fields})


def _tag_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("type")
    return None if field is None else field.default


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def to_yaml(config: ExperimentConfig) -> str:
    """Return a configuration as YAML that `load_config` reads back to an equal one."""
    content: Mapping[str, Any] = config.model_dump(mode="json")
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
