"""The published corpora, in the folder that CAPO_DATA_DIR names; a test that needs one is skipped where it is not."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from evaluation_material import NLI, SCORES

from capo_core.corpora import read_corpus
from capo_core.splits import assign_splits
from schemas.config import SplitConfig

VARIERR_FILE = "varierr.json"
PARAPHRASE_FILE = "Paraphrase_train.json"


def real_file(name: str) -> Path:
    """Return a published file; skip the test where it is not at hand."""
    folder = os.environ.get("CAPO_DATA_DIR")
    if not folder or not (path := Path(folder) / name).is_file():
        pytest.skip(f"CAPO_DATA_DIR names no folder with {name}")
    return path


@cache
def varierr_corpus() -> pl.DataFrame:
    """Return VariErr as CORPUS, with the default splits."""
    return assign_splits(read_corpus([real_file(VARIERR_FILE)], "varierr", NLI).annotations, SplitConfig())


@cache
def paraphrase_corpus() -> pl.DataFrame:
    """Return Paraphrase as CORPUS, with the default splits."""
    return assign_splits(read_corpus([real_file(PARAPHRASE_FILE)], "lewidi", SCORES).annotations, SplitConfig())
