"""The files of a published adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from capo_core.models import read_adapter_settings
from capo_core.release.base_model import PublicBase
from schemas.registry import AnsweringRecipe

WEIGHTS_FILE, SETTINGS_FILE, RECIPE_FILE = "adapter_model.safetensors", "adapter_config.json", "recipe.json"


def write_adapter(adapter_dir: Path, recipe: AnsweringRecipe, base: PublicBase, folder: Path) -> None:
    """Write an adapter's weights as they are, its settings with the public base model, and its recipe.

    Args:
        adapter_dir: folder of the adapter.
        recipe: how it is asked, people named as they are in public.
        base: its base model as others find it.
        folder: to write into.
    """
    shutil.copyfile(adapter_dir / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    settings = read_adapter_settings(adapter_dir) | {"base_model_name_or_path": base.id, "revision": base.revision}
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / RECIPE_FILE).write_text(recipe.model_dump_json(indent=1) + "\n", encoding="utf-8")


def publish_recipe(recipe: AnsweringRecipe, base: PublicBase, pseudonyms: dict[str, str]) -> AnsweringRecipe:
    """Return a recipe that names the base model and people as others know them.

    An adapter of several people keeps their ids: they stand in the prompts that it was trained on.

    Args:
        recipe: as registered.
        base: its base model as others find it.
        pseudonyms: by id.
    """
    model = recipe.model.model_copy(update={"id": base.id, "revision": base.revision})
    if recipe.tag is not None:
        return recipe.model_copy(update={"model": model})
    people = tuple(pseudonyms[annotator] for annotator in recipe.annotators)
    return recipe.model_copy(update={"model": model, "target": people[0], "annotators": people})
