"""Everything raters may be handed, whatever they rate with, written into one folder."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from capo_core.human_validation import argilla_records, label_studio
from capo_core.human_validation.blinding import name_set
from capo_core.human_validation.rating_page.page import render_rating_page
from capo_core.human_validation.sheet import CONSENT, write_instructions, write_sheets, write_text
from schemas.config import TaskSpec
from schemas.human_validation import HumanValidationConfig

PAGE_FILE = "rating_page.html"


def write_rater_files(
    tasks: pl.DataFrame, directory: Path, task: TaskSpec, config: HumanValidationConfig, *, consent: str
) -> None:
    """Write the rating page, the spreadsheets, and what Label Studio and Argilla import, into `directory`.

    Nothing written names a method or an annotator, or which tasks are checks or repeats.

    Args:
        tasks: VALIDATION_TASKS.
        directory: made if need be.
        task: its question and names of texts.
        config: number of raters and the seed of their orders.
        consent: Markdown, shown before anything else.
    """
    write_sheets(tasks, directory, task, config)
    instructions = write_instructions(tasks, task)
    page = render_rating_page(tasks, task, consent=consent, instructions=instructions, set_id=name_set(tasks))
    settings = argilla_records.write_argilla_settings(
        tasks, task, guidelines=f"{consent}\n\n{instructions}", n_raters=config.n_raters
    )
    for name, text in (
        (CONSENT, consent),
        (PAGE_FILE, page),
        (label_studio.CONFIG_FILE, label_studio.write_labelling_config(tasks, task)),
        (label_studio.TASKS_FILE, label_studio.write_label_studio_tasks(tasks)),
        (argilla_records.SETTINGS_FILE, settings),
        (argilla_records.RECORDS_FILE, argilla_records.write_argilla_records(tasks)),
    ):
        write_text(directory / name, text)
