"""Configurations as YAML files: read, overridden, validated, with errors that name file and key."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from capo_core.errors import ConfigError
from capo_core.redaction import hide_credentials
from schemas.config import ExperimentConfig

SectionT = TypeVar("SectionT", bound=BaseModel)

_MAX_BYTES = 1_000_000
_MAX_PROBLEMS = 20
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without aliases, in which a key given twice is an error instead of the last one winning.

    A configuration is read top to bottom; ten lines of aliases to aliases would be a thousand million values.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ConfigError(f"line {event.start_mark.line + 1}: *{event.anchor}: write the value out, not an alias")
        return super().compose_node(parent, index)


def _construct_mapping(loader: _PlainLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    given: set[str] = set()
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConfigError(f"line {line}: key {_shorten(key)} is no text; put it in quotes if it is meant")
        if key in given:
            raise ConfigError(f"line {line}: key {key!r} is given twice")
        given.add(key)
    return loader.construct_mapping(node, deep=True)


_PlainLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
# YAML 1.1 takes 5e-5 for text, because it has no point; YAML 1.2 and JSON do not.
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), [*"-+0123456789"]
)


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
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {reason}; name a YAML file as in deployments/configs/") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"{path}: has {len(content):,} bytes, a configuration {_MAX_BYTES:,} at most; is it the data?"
        )
    parsed = _parse_yaml(text, f"{path}, ", f"{path}: ")
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path}: must hold keys and values, holds {type(parsed).__name__}")
    return parsed


def _parse_yaml(text: str, place: str, source: str) -> Any:
    """Return the value of a YAML text; errors begin with `place` where they name a line, else with `source`."""
    try:
        return yaml.load(text, _PlainLoader)
    except ConfigError as error:
        raise ConfigError(f"{place}{error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}not valid YAML: {error}") from error


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
    section[last] = _parse_yaml(text, f"--set {override}: ", f"--set {override}: the value is ")


def _describe(error: ValidationError, source: str, section: type[BaseModel]) -> str:
    """Return one line per problem: file, key, what is wrong and what is allowed."""
    lines = [f"{source}: {error.error_count()} problem(s)"]
    problems = error.errors(include_url=False, include_context=False)
    for problem in problems[:_MAX_PROBLEMS]:
        key = _name_key(problem["loc"], keep_last=problem["type"] in ("extra_forbidden", "missing"))
        if problem["type"] == "extra_forbidden":
            allowed = ", ".join(_allowed_keys(problem["loc"], section))
            lines.append(f"  {key}: unknown key; allowed here: {allowed}")
        elif problem["type"] == "missing":
            lines.append(f"  {key}: required but missing")
        else:
            lines.append(f"  {key}: {problem['msg']} (found {_shorten(problem['input'])})")
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"  and {len(problems) - _MAX_PROBLEMS} more")
    return "\n".join(lines)


def _name_key(location: Sequence[int | str], *, keep_last: bool) -> str:
    """Return a dotted key, without what pydantic calls the forms that a value may have (`literal['auto']`, `str`)."""
    parts = [
        str(part)
        for place, part in enumerate(location)
        if isinstance(part, int) or (keep_last and place == len(location) - 1) or _is_key(part)
    ]
    return ".".join(_shorten(part)[1:-1] for part in parts) or "(whole file)"


def _is_key(part: str) -> bool:
    return part.isidentifier() and part not in ("str", "int", "float", "bool")


def _shorten(value: Any) -> str:
    """Return what a value looks like, in 80 characters, however large or deep it is."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = f"<{type(value).__name__}>"
    text = hide_credentials(text)
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
