"""Adapters in MLflow's model registry: one registered model per corpus and person, one version per adapter.

A version is a LoggedModel whose artifacts are the adapter's folder as it stands in the artifact store, manifest
included, and the recipe of asking it; whoever fetches it checks the same hashes. Nothing of it is ever unpickled:
`mlflow.pyfunc` and `mlflow.transformers` are not used.

Aliases: `challenger` is the newest version, `champion` the one that answers by default.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import ValidationError

from capo_core.errors import RegistryError
from capo_core.results import FIGURES
from schemas.artifacts import ArtifactRef
from schemas.registry import AnsweringRecipe
from tasks import tracking
from tasks.storage.artifact_store import ArtifactStore
from tasks.train import SHARED

CHAMPION, CHALLENGER = "champion", "challenger"
ADAPTER_FOLDER, RECIPE_FILE = "adapter", "recipe.json"

_ADAPTER_TAG, _MODEL_TAG = "capo.adapter", "capo.logged_model"
_GATE_TAG, _GATE_REASONS_TAG, _DECISION_TAG = "capo.gate", "capo.gate_reasons", "capo.gate_decision"
_MAX_TAG_LENGTH = 5000  # MLflow keeps that many characters
_RETIRED_TAG = "capo.retired_because"
_PREVIOUS_TAG, _REASON_TAG = "capo.previous_champion", "capo.promoted_because"
_DESCRIPTION_FILE = "README.md"


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: of the registered model.
        number: of the version.
        model_id: of the LoggedModel that holds its files.
        adapter: the artifact it registers.
        aliases: among them `champion` and `challenger`.
        tags: as MLflow shows them.
    """

    name: str
    number: str
    model_id: str
    adapter: ArtifactRef
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


def model_name(corpus: str, target: str) -> str:
    """Return the name of the registered model of a person on a corpus; what MLflow refuses in names is escaped."""
    return f"{corpus}.{quote(target, safe=' ')}"


@task(name="register", task_run_name="register {recipe.target}", cache_policy=NO_CACHE, persist_result=False)
def register_adapter(recipe: AnsweringRecipe, run_id: str, figures: Mapping[str, float]) -> Version:
    """Return the version of an adapter; a new one is the challenger, one that is there stays what it is.

    Args:
        recipe: the adapter and how it is asked.
        run_id: of the MLflow run that it came out of.
        figures: what the evaluation found of it, by name.
    """
    name = model_name(recipe.corpus, recipe.target)
    found = [version for version in list_versions(name) if version.adapter == recipe.adapter]
    if found:
        return found[-1]
    _create_registered_model(name)
    number = _create_version(name, recipe, run_id, figures)
    tracking.tracking_client().set_registered_model_alias(name, CHALLENGER, number)
    return find_version(name, number)


def read_figures(evaluation: ArtifactRef, method: str, target: str) -> dict[str, float]:
    """Return what an evaluation found of a method in a person's place, of a shared adapter over all, by metric name."""
    person = "all" if target == SHARED else target
    metrics = ArtifactStore().read_table(evaluation).filter(method=method, annotator_id=person)
    keys = ("metric", "decision", "condition", "classifier", "group_size")
    wanted = {tuple(getattr(figure, key) for key in keys) for figure in FIGURES}
    kept = [row for row in metrics.iter_rows(named=True) if tuple(row[key] for key in keys) in wanted]
    return tracking.name_figures(pl.DataFrame(kept, schema=metrics.schema))


def _create_registered_model(name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    try:
        tracking.tracking_client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _create_version(name: str, recipe: AnsweringRecipe, run_id: str, figures: Mapping[str, float]) -> str:
    """Store the adapter's folder and its recipe as a LoggedModel and return the number of the version it is."""
    client, store = tracking.tracking_client(), ArtifactStore()
    store.verify(recipe.adapter)
    folder = store.path(recipe.adapter)
    model = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name=f"{recipe.method}-seed-{recipe.seed}",
        source_run_id=run_id,
        tags={_ADAPTER_TAG: str(recipe.adapter)},
        params={"base_model": recipe.model.id, "method": recipe.method, "seed": str(recipe.seed)},
        model_type="adapter",
    )
    try:
        client.log_model_artifacts(model.model_id, str(folder), ADAPTER_FOLDER)
        with tempfile.TemporaryDirectory(prefix="capo-recipe-") as scratch:
            (Path(scratch) / RECIPE_FILE).write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
            client.log_model_artifacts(model.model_id, scratch)
        for key, value in figures.items():
            client.log_metric(run_id, key, value, model_id=model.model_id)
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    client.finalize_logged_model(model.model_id, "READY")
    card = folder / _DESCRIPTION_FILE
    version = client.create_model_version(
        name,
        model.artifact_location,  # a models:/ source would be looked up under MLflow's global tracking URI
        run_id,
        tags={
            _ADAPTER_TAG: str(recipe.adapter),
            # A search of versions does not say which LoggedModel each is of.
            _MODEL_TAG: model.model_id,
            "capo.base_model": recipe.model.id,
            "capo.base_model_fingerprint": recipe.fingerprint,
            "capo.corpus": str(recipe.corpus_version),
            "capo.evaluation": str(recipe.evaluation),
            "capo.method": recipe.method,
            "capo.seed": str(recipe.seed),
        },
        description=_without_header(card.read_text(encoding="utf-8")) if card.exists() else None,
        model_id=model.model_id,
    )
    return str(version.version)


def _without_header(card: str) -> str:
    """Return a card without the YAML that the Hugging Face hub reads."""
    return card.split("---\n", 2)[2].strip() if card.startswith("---\n") else card


def list_versions(name: str | None = None) -> list[Version]:
    """Return the versions of one registered model of capo's, or of all, by name and from old to new."""
    if name is not None and set(name) & set("'\"\\"):
        return []  # `model_name` escapes these; in a search they would end the name
    client = tracking.tracking_client()
    wanted = None if name is None else f"name='{name}'"
    listed = tracking.read_pages(lambda **page: client.search_model_versions(wanted, **page))
    found = [version for version in listed if _ADAPTER_TAG in version.tags]
    aliases = {registered: client.get_registered_model(registered).aliases for registered in {v.name for v in found}}
    ordered = sorted(found, key=lambda version: (version.name, int(version.version)))
    return [_read_version(version, aliases[version.name]) for version in ordered]


def _read_version(version: Any, aliases: Mapping[str, str]) -> Version:
    try:
        adapter = ArtifactRef.parse(version.tags[_ADAPTER_TAG])
    except ValueError as error:
        raise RegistryError(f"{version.name}, version {version.version}: tag {_ADAPTER_TAG}: {error}") from error
    own = tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(version.version)))
    return Version(version.name, str(version.version), version.tags[_MODEL_TAG], adapter, own, version.tags)


def find_version(name: str, wanted: str = CHAMPION) -> Version:
    """Return the version of a registered model that an alias or a number names.

    Raises:
        RegistryError: if there is none; says which there are.
    """
    versions = list_versions(name)
    if not versions:
        names = sorted({version.name for version in list_versions()})
        raise RegistryError(f"{name}: no such registered model; there are {', '.join(names) or 'none: run capo run'}")
    for version in versions:
        if wanted in (version.number, *version.aliases):
            return version
    numbers = ", ".join(
        version.number + (f" ({', '.join(version.aliases)})" if version.aliases else "") for version in versions
    )
    advice = f"; make one: capo models promote {name} NUMBER --reason …" if wanted == CHAMPION else ""
    raise RegistryError(f"{name}: no version {wanted!r}; there are {numbers}{advice}")


def fetch_version(version: Version) -> AnsweringRecipe:
    """Return a version's recipe; its adapter is in the artifact store afterwards, checked against its hash.

    Raises:
        RegistryError: if its files are not what the version says they are.
    """
    from mlflow.artifacts import download_artifacts

    store = ArtifactStore()
    where = f"{version.name}, version {version.number}"
    with tempfile.TemporaryDirectory(prefix="capo-version-") as scratch:
        uri = tracking.tracking_uri()
        location = tracking.tracking_client().get_logged_model(version.model_id).artifact_location
        folder = Path(download_artifacts(artifact_uri=location, dst_path=scratch, tracking_uri=uri))
        try:
            recipe = AnsweringRecipe.model_validate_json((folder / RECIPE_FILE).read_bytes())
        except (OSError, ValidationError) as error:
            raise RegistryError(f"{where}: {RECIPE_FILE} cannot be read: {error}") from error
        if recipe.adapter != version.adapter:
            raise RegistryError(f"{where}: its recipe is of {recipe.adapter}, its tag says {version.adapter}")
        store.adopt(version.adapter, folder / ADAPTER_FOLDER)
    return recipe


def keep_decision(
    version: Version, decision: ArtifactRef, is_promoted: bool, reasons: Sequence[tuple[str, bool]]
) -> None:
    """Keep with a version what the promotion gate decided about it, and the reasons for that."""
    client = tracking.tracking_client()
    failed = [reason for reason, holds in reasons if not holds]
    told = " | ".join(failed or [reason for reason, _ in reasons])
    for key, value in (
        (_GATE_TAG, "promoted" if is_promoted else "refused"),
        (_GATE_REASONS_TAG, told[:_MAX_TAG_LENGTH]),
        (_DECISION_TAG, str(decision)),
    ):
        client.set_model_version_tag(version.name, version.number, key, value)


def find_champion(name: str) -> Version | None:
    """Return the champion of a registered model, None where there is none."""
    return next((version for version in list_versions(name) if CHAMPION in version.aliases), None)


def promote(name: str, wanted: str, reason: str, *, against_gate: bool = False) -> tuple[Version, Version | None]:
    """Make a version the champion; return it and the champion before it.

    Args:
        name: of the registered model.
        wanted: number or alias of the version.
        reason: kept with the version.
        against_gate: whether a version that the promotion gate refused is meant all the same.

    Raises:
        RegistryError: if there is no such version, the reason is empty, or the gate refused the version.
    """
    if not reason.strip():
        raise RegistryError(f"{name}: a promotion needs a reason; it is kept with the version")
    version = find_version(name, wanted)
    if version.tags.get(_GATE_TAG) == "refused" and not against_gate:
        raise RegistryError(
            f"{name}: the gate refused version {version.number}: {version.tags[_GATE_REASONS_TAG]}. To promote it all "
            "the same, add --force"
        )
    before = find_champion(name)
    if before is not None and before.number != version.number:
        tracking.tracking_client().set_model_version_tag(name, version.number, _PREVIOUS_TAG, before.number)
    return _crown(version, reason), before


def roll_back(name: str, reason: str) -> tuple[Version, Version]:
    """Make the champion before the present one champion again; return it and the one it replaces.

    Raises:
        RegistryError: if there is no champion, or none before it.
    """
    present = find_version(name)
    previous = present.tags.get(_PREVIOUS_TAG)
    if previous is None:
        raise RegistryError(f"{name}: version {present.number} is the first champion; there is none to go back to")
    restored = _crown(find_version(name, previous), f"rollback of version {present.number}: {reason}")
    return restored, present


@task(name="retire", task_run_name="retire {corpus}", cache_policy=NO_CACHE, persist_result=False)
def retire_refusing(corpus: str, refusing: Mapping[str, str]) -> list[Version]:
    """Take champion and challenger away from models of people who do not consent to modelling any more; return them.

    Args:
        corpus: its name.
        refusing: why, by annotator.
    """
    retired = []
    for version in list_versions() if refusing else []:
        if not version.aliases or not version.name.startswith(f"{corpus}."):
            continue
        recipe = fetch_version(version)
        people = [who for who in recipe.annotators if who in refusing]
        if recipe.corpus == corpus and people:
            client = tracking.tracking_client()
            for alias in version.aliases:
                client.delete_registered_model_alias(version.name, alias)
            told = "; ".join(f"{who}: {refusing[who]}" for who in people)
            client.set_model_version_tag(version.name, version.number, _RETIRED_TAG, told[:_MAX_TAG_LENGTH])
            get_run_logger().warning("%s: version %s answers no more: %s", version.name, version.number, told)
            retired.append(version)
    return retired


def _crown(version: Version, reason: str) -> Version:
    client = tracking.tracking_client()
    stated = f"{time.strftime('%Y-%m-%d %H:%M')}: {reason}"
    client.set_model_version_tag(version.name, version.number, _REASON_TAG, stated)
    client.set_registered_model_alias(version.name, CHAMPION, version.number)
    return find_version(version.name, version.number)
