"""Which registered models a server answers with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capo_core.errors import RegistryError, ServeError
from capo_core.generation.predicting import check_base
from capo_core.models import resolve_model
from schemas.artifacts import ModelRef
from schemas.registry import AnsweringRecipe
from tasks.registry import Version, fetch_version, find_version, list_versions, model_name
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import model_cache
from tasks.train import SHARED


@dataclass(frozen=True)
class ServedModel:
    """One person as a model: whose adapter answers, how it is asked, and its place among the adapters."""

    name: str
    annotator_id: str
    version: Version
    recipe: AnsweringRecipe
    adapter: int


@dataclass(frozen=True)
class Served:
    """All that one server answers with.

    Attributes:
        models: by name, sorted.
        base: the base model of all of them.
        adapters: the folder of each adapter, in the artifact store.
        left_out: registered models without the version wanted, and why.
    """

    models: dict[str, ServedModel]
    base: ModelRef
    adapters: tuple[Path, ...]
    left_out: tuple[str, ...]

    @property
    def recipe(self) -> AnsweringRecipe:
        """The first model's recipe: what all have in common stands in it."""
        return next(iter(self.models.values())).recipe


def find_served(corpora: Sequence[str], wanted: str) -> Served:
    """Return every person of the corpora whom a registered adapter answers for, as `capo predict` finds them.

    Adapters are in the artifact store afterwards, checked against their hashes. A person with a registered model of
    their own is answered for by that one alone, also where it has no version wanted: then by none.

    Args:
        corpora: names.
        wanted: alias or number of the versions.

    Raises:
        RegistryError: if a corpus has no registered model with such a version.
        ServeError: if the adapters are of different base models.
    """
    registered = sorted({version.name for version in list_versions()})
    found: list[tuple[Version, AnsweringRecipe]] = []
    left_out: list[str] = []
    for corpus in dict.fromkeys(corpora):
        fetched, reasons = _fetch_corpus(corpus, wanted, [name for name in registered if name.startswith(f"{corpus}.")])
        if not fetched:
            there = "; ".join(reasons) or f"there are {', '.join(registered) or 'none: run capo run'}"
            raise RegistryError(f"{corpus}: no registered model to serve as {wanted!r}: {there}")
        found += fetched
        left_out += reasons
    _refuse_other_bases(found)
    recipe = found[0][1]
    base = resolve_model(recipe.model.id, recipe.model.revision, cache_dir=model_cache())
    for _, recipe in found:
        check_base(base, recipe)
    places = {ref: place for place, ref in enumerate(dict.fromkeys(recipe.adapter for _, recipe in found))}
    models = {}
    for version, recipe in found:
        for annotator in recipe.annotators:
            name = model_name(recipe.corpus, annotator)
            if recipe.target == SHARED and name in registered:
                continue
            models[name] = ServedModel(name, annotator, version, recipe, places[recipe.adapter])
    adapters = tuple(ArtifactStore().path(ref) for ref in places)
    return Served(dict(sorted(models.items())), base, adapters, tuple(left_out))


def _fetch_corpus(
    corpus: str, wanted: str, names: Sequence[str]
) -> tuple[list[tuple[Version, AnsweringRecipe]], list[str]]:
    """Return the wanted versions of a corpus's registered models, and why others have none."""
    found, reasons = [], []
    for name in names:
        try:
            version = find_version(name, wanted)
        except RegistryError as error:
            reasons.append(str(error))
            continue
        recipe = fetch_version(version)
        if recipe.corpus == corpus:  # a corpus's name may itself begin with another's and a dot
            found.append((version, recipe))
    return found, reasons


def _refuse_other_bases(found: Sequence[tuple[Version, AnsweringRecipe]]) -> None:
    def describe(recipe: AnsweringRecipe) -> tuple[Any, ...]:
        return recipe.model.id, recipe.fingerprint[:16], recipe.model.dtype, recipe.model.device

    first, reference = found[0]
    for version, recipe in found:
        if describe(recipe) != describe(reference):
            raise ServeError(
                f"{first.name} is an adapter of {' '.join(describe(reference))}, {version.name} of "
                f"{' '.join(describe(recipe))}; one server has one base model, so start one for each"
            )
