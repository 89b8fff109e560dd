"""The blinded rating set out, ratings back in."""

from __future__ import annotations

import shutil
from pathlib import Path

from capo_core.human_validation.blinding import build_validation_set
from capo_core.human_validation.ratings import read_ratings, summarise_ratings
from capo_core.human_validation.sheet import write_sheets
from schemas.artifacts import ArtifactRef, SourceFile
from schemas.config import TaskSpec
from schemas.human_validation import HumanValidationConfig
from tasks.artifact_store import ArtifactStore
from tasks.sources import secret_id, validation_secret
from tasks.step import Step, step


@step("export-validation", version=1)
def export_validation(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    task: TaskSpec,
    human_validation: HumanValidationConfig,
    signed_by: str,
) -> tuple[ArtifactRef, ArtifactRef]:
    """Return the sheets raters see and, as an artifact of its own, the key to them."""
    secret = validation_secret()
    if secret_id(secret) != signed_by:
        raise ValueError(f"the validation secret in this home is not {signed_by}; run the whole flow on one machine")
    tasks, key = build_validation_set(
        step.read(corpus), step.read_all(generations), task, human_validation, secret=secret
    )
    counts = {name: int(n) for name, n in sorted(key["method"].value_counts().iter_rows())}
    step.logger.info("export-validation: %d tasks, by method %s", tasks.height, counts)
    sheets = step.write(
        "validation_tasks", {"data.parquet": tasks}, fill=lambda folder: write_sheets(tasks, folder, task)
    )
    return sheets, step.write("validation_key", {"data.parquet": key}, metadata={"tasks_by_method": counts})


@step("import-validation", version=2)
def import_ratings(
    step: Step, key: ArtifactRef, source: SourceFile, human_validation: HumanValidationConfig
) -> ArtifactRef:
    """Return the ratings with the annotator behind each answer, and the figures by method."""
    key_table = step.read(key)
    ratings = read_ratings(Path(source.path), key_table)
    metrics = summarise_ratings(ratings, key_table, seed=human_validation.seed)
    step.logger.info("import-validation: %d ratings by %d raters", ratings.height, ratings["rater_id"].n_unique())
    return step.write(
        "ratings", {"data.parquet": ratings, "metrics.parquet": metrics}, metadata={"source": source.cache_identity()}
    )


def copy_sheets(sheets: ArtifactRef, directory: Path) -> Path:
    """Copy what raters get, and nothing else, to `directory`; return it."""
    store = ArtifactStore()
    manifest = store.verify(sheets)
    directory.mkdir(parents=True, exist_ok=True)
    for name in manifest.files:
        if not name.endswith(".parquet"):
            shutil.copyfile(store.path(sheets) / name, directory / name)
    return directory
