"""The blinded rating set out, ratings back in."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
from pydantic import JsonValue

from capo_core.errors import InputFileError
from capo_core.human_validation.blinding import build_validation_set
from capo_core.human_validation.judge_agreement import compare_with_judges
from capo_core.human_validation.rater_files import write_rater_files
from capo_core.human_validation.rating_figures import summarise_ratings
from capo_core.human_validation.ratings import read_ratings
from capo_core.human_validation.sheet import PLACEHOLDER, read_consent, write_text
from capo_core.human_validation.team_notes import TEAM_FILE, describe_power, plan_power, write_team_notes
from capo_core.judging.groups import keep_candidates
from schemas.artifacts import ArtifactRef, SourceFile
from schemas.config import TaskSpec
from schemas.frames import VERDICTS
from schemas.human_validation import HumanValidationConfig
from tasks.sources import find_source, secret_id, validation_secret
from tasks.step import Step, step
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import data_dir

RATING_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json")


@step("export-validation", version=2)
def export_validation(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    task: TaskSpec,
    human_validation: HumanValidationConfig,
    consent: SourceFile | None,
    signed_by: str,
) -> tuple[ArtifactRef, ArtifactRef]:
    """Return the files raters get and, as an artifact of its own, the key to them with the notes for the team."""
    secret = validation_secret()
    if secret_id(secret) != signed_by:
        raise ValueError(f"the validation secret in this home is not {signed_by}; run the whole flow on one machine")
    consent_text = read_consent(Path(consent.path) if consent else None)
    n_references = human_validation.n_references
    frame, answered, left_out = keep_candidates(step.read(corpus), step.read_all(generations), n_references)
    if left_out:
        step.logger.warning("not rated, for want of %d references: %s", n_references, ", ".join(left_out))
    tasks, key = build_validation_set(frame, answered, task, human_validation, secret=secret)
    sheets = step.write(
        "validation_tasks",
        {"data.parquet": tasks},
        fill=lambda folder: write_rater_files(tasks, folder, task, human_validation, consent=consent_text),
    )
    plan = plan_power(key, human_validation)
    notes = write_team_notes(tasks, key, human_validation, consent_text)
    rated = key.filter(pl.col("kind") == "rating")
    counts: dict[str, JsonValue] = {name: int(n) for name, n in sorted(rated["method"].value_counts().iter_rows())}
    step.logger.info("export-validation: %d tasks, to rate by method %s", tasks.height, counts)
    step.logger.info(
        "export-validation: %s", describe_power(plan.n_tasks, plan.n_raters, plan.detectable_difference).strip("*")
    )
    if PLACEHOLDER in consent_text:
        step.logger.warning(
            "the consent text has placeholders: write it and name it as human_validation.consent_path before use"
        )
    return sheets, step.write(
        "validation_key",
        {"data.parquet": key},
        fill=lambda folder: write_text(folder / TEAM_FILE, notes),
        metadata={"tasks_by_method": counts, "power": plan.to_metadata()},
    )


@step("import-validation", version=3)
def import_ratings(
    step: Step,
    tasks: ArtifactRef,
    key: ArtifactRef,
    verdicts: list[ArtifactRef],
    sources: list[SourceFile],
    human_validation: HumanValidationConfig,
) -> ArtifactRef:
    """Return the ratings with the annotator behind each answer, the figures by method, and raters against judges."""
    key_table = step.read(key)
    ratings = read_ratings([Path(source.path) for source in sources], key_table, step.read(tasks))
    found = summarise_ratings(ratings, key_table, human_validation)
    judged = step.read_all(verdicts) if verdicts else pl.DataFrame(schema=VERDICTS)
    n_excluded = int(found.raters["excluded"].sum())
    step.logger.info(
        "import-validation: %d ratings by %d raters, %d of them excluded by the rule",
        ratings.height, found.raters.height, n_excluded,
    )  # fmt: skip
    return step.write(
        "ratings",
        {
            "data.parquet": ratings,
            "metrics.parquet": found.metrics,
            "comparisons.parquet": found.comparisons,
            "raters.parquet": found.raters,
            "judges.parquet": compare_with_judges(ratings, judged, seed=human_validation.seed),
        },
        metadata={"sources": [source.cache_identity() for source in sources], "n_raters_excluded": n_excluded},
    )


def find_ratings(path: str) -> list[SourceFile]:
    """Return the file of ratings a path names, or all in the folder it names, sorted by name.

    Raises:
        InputFileError: if there is no such file, or none in the folder.
    """
    folder = data_dir() / path
    if not folder.is_dir():
        return [find_source(path)]
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in RATING_SUFFIXES and file.is_file())
    if not found:
        raise InputFileError(f"{folder}: no file of ratings in it; they end with {', '.join(RATING_SUFFIXES)}")
    return [find_source(str(file.resolve())) for file in found]


def copy_sheets(sheets: ArtifactRef, directory: Path) -> Path:
    """Copy what raters get, and nothing else, to `directory`; return it."""
    store = ArtifactStore()
    manifest = store.verify(sheets)
    directory.mkdir(parents=True, exist_ok=True)
    for name in manifest.files:
        if not name.endswith(".parquet"):
            shutil.copyfile(store.path(sheets) / name, directory / name)
    return directory


def copy_team_notes(key: ArtifactRef, directory: Path) -> Path:
    """Copy the notes for the team, and nothing of the key itself, to `directory`; return the file."""
    store = ArtifactStore()
    store.verify(key)
    directory.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(store.path(key) / TEAM_FILE, directory / TEAM_FILE))
