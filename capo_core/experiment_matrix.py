"""From the file of a matrix to the arms of an experiment, each with a configuration of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from capo_core.config_file import load_config, load_section, validate_section
from capo_core.errors import ConfigError
from schemas.config import ExperimentConfig
from schemas.experiment import Arm, ExperimentMatrix, Layout
from schemas.section import Method
from schemas.training import PairConfig

JUDGED_FORMATS = ("varierr",)
"""Formats whose explanations carry second-round judgements."""

DECIDED_BY_THE_MATRIX = ("name", "adapter.layout", "pairs", "generation.methods", "seeds")
"""Keys of a configuration that no override may set."""

_PROMPT_METHODS: tuple[Method, ...] = ("zero_shot", "history", "profile")


def load_matrix(path: Path, overrides: Sequence[str] = ()) -> tuple[ExperimentMatrix, list[ExperimentConfig]]:
    """Return the matrix of a YAML file and the configurations it names, in its order.

    Args:
        path: the file; it names the configurations relative to its own folder.
        overrides: `dotted.key=value` each, applied to the matrix.

    Raises:
        ConfigError: if the matrix, a configuration or any arm of them is wrong; names file and key.
    """
    matrix = load_section(path, ExperimentMatrix, overrides)
    configs = [load_config(path.parent / name) for name in matrix.configs]
    expand_arms(matrix, configs)  # what is wrong in any arm is said before anything runs
    return matrix, configs


def expand_arms(matrix: ExperimentMatrix, configs: Sequence[ExperimentConfig]) -> list[Arm]:
    """Return every configuration × layout × pair strategy, in this order of nesting.

    A strategy that needs judgements is left out for corpora without judgements. Without `capo` among the methods, pairs
    are not used, and every configuration and layout is one arm, of the first strategy that it can have.

    Args:
        matrix: what is compared.
        configs: the configurations that it names.

    Raises:
        ConfigError: if overrides do not fit a configuration or name no corpus or layout of the matrix, if two
            configurations have the same corpus and model, or if nothing is left to run.
    """
    _check_names(matrix, configs)
    arms = []
    for config in configs:
        is_judged = config.corpus.format in JUDGED_FORMATS
        strategies = [pairs for pairs in matrix.pair_strategies if is_judged or not pairs.needs_judgements]
        for layout in matrix.layouts:
            used = strategies if "capo" in matrix.methods else strategies[:1]
            arms += [Arm(config=_configure(matrix, config, layout, pairs)) for pairs in used]
    if not arms:
        raise ConfigError(f"{matrix.name}: every pair strategy asks for judgements, which no corpus of it carries")
    return arms


def _check_names(matrix: ExperimentMatrix, configs: Sequence[ExperimentConfig]) -> None:
    corpora = [config.corpus.name for config in configs]
    for key, known in (("corpus", corpora), ("layout", matrix.layouts)):
        unknown = sorted({getattr(recipe, key) for recipe in matrix.recipes} - {None, *known})
        if unknown:
            raise ConfigError(f"{matrix.name}: recipes name {key} {unknown}; this matrix has {sorted(set(known))}")
    parts = (matrix.overrides, *(recipe.set for recipe in matrix.recipes))
    taken = sorted(key for part in parts for key in part if _is_decided(key))
    if taken:
        raise ConfigError(
            f"{matrix.name}: overrides set {taken}, which name, layouts, pair_strategies, methods and seeds decide"
        )
    identities = [(config.corpus.name, config.model.id) for config in configs]
    twice = sorted({identity for identity in identities if identities.count(identity) > 1})
    if twice:
        raise ConfigError(f"{matrix.name}: two configurations have the same corpus and model: {twice}")
    if matrix.transfer and len(set(corpora)) < 2:
        raise ConfigError(f"{matrix.name}: transfer needs configurations of two corpora or more, not only {corpora}")


def _is_decided(key: str) -> bool:
    return any(key == own or key.startswith(f"{own}.") for own in DECIDED_BY_THE_MATRIX)


def _configure(
    matrix: ExperimentMatrix, config: ExperimentConfig, layout: Layout, pairs: PairConfig
) -> ExperimentConfig:
    """Return the configuration of one arm."""
    own: dict[str, JsonValue] = {
        "name": matrix.name,
        "adapter.layout": layout,
        "pairs": pairs.model_dump(mode="json"),
        "generation.methods": list(matrix.methods),
        "judge.methods": _keep(config.judge.methods, matrix),
        "human_validation.methods": _keep(config.human_validation.methods, matrix),
        "seeds": list(matrix.seeds),
    }
    parts = (
        matrix.overrides,
        *(recipe.set for recipe in matrix.recipes if recipe.applies_to(config.corpus.name, layout)),
        own,
    )
    overrides = [text for part in parts for text in _write_overrides(part)]
    source = f"{matrix.name}: {config.name} with its overrides for layout {layout}"
    return validate_section(config.model_dump(mode="json"), ExperimentConfig, overrides, source)


def _keep(methods: Sequence[str], matrix: ExperimentMatrix) -> list[JsonValue]:
    """Return those of a section's methods that the matrix produces; people's own text is always there."""
    return [method for method in methods if method in ("human", *matrix.methods)]


def _write_overrides(part: Mapping[str, JsonValue]) -> list[str]:
    """Return overrides as `--set` takes them; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in part.items()]


def split_methods(config: ExperimentConfig) -> tuple[ExperimentConfig | None, ExperimentConfig | None]:
    """Return the configuration of the prompting baselines and that of the trained methods; None where there is none.

    The first is the same for all arms whose baselines are: it keeps nothing of layout, pairs, training and evaluation.
    """
    prompted = tuple(method for method in config.generation.methods if method in _PROMPT_METHODS)
    trained = tuple(method for method in config.generation.methods if method not in _PROMPT_METHODS)
    kept = ("name", "task", "corpus", "splits", "model", "profile", "seeds")
    baselines = ExperimentConfig(
        **{name: getattr(config, name) for name in kept},
        generation=config.generation.model_copy(update={"methods": prompted}),
        judge=config.judge.model_copy(update={"methods": ()}),
        human_validation=config.human_validation.model_copy(update={"methods": ()}),
    )
    tuned = config.model_copy(update={"generation": config.generation.model_copy(update={"methods": trained})})
    return (baselines if prompted else None), (tuned if trained else None)
