"""A data set from a configuration: refused without consent, whole with it, the risk in the card as it was measured."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from rich.console import Console

from capo_core.config_file import load_config
from capo_core.errors import ReleaseError
from capo_core.report.formats import format_value
from deployments.datasets import print_privacy, require_releasable, write_dataset
from flows import stages
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks.storage.artifact_store import ArtifactStore

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
PEOPLE = ("ada", "ben", "chi", "dov")
SMALL = [
    "name=released", "corpus.name=released", "stability.group_sizes=[1, 5]", "stability.n_repeats=1",
    "stability.n_bootstrap=100", "stability.n_permutations=100", "stability.reductions=[none]",
    "stability.classifiers=[ngrams]", "stability.normalisations=[none]", "stability.n_folds=2", "corpus.max_items=30",
    "adapter.layout=shared",
]  # fmt: skip


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return load_config(EXAMPLE, SMALL)


@pytest.fixture(scope="module")
def references(config: ExperimentConfig, prefect_server: None) -> dict[str, str]:
    return stages.release_dataset(config)


@pytest.fixture(scope="module")
def published(config: ExperimentConfig, references: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "released"
    write_dataset(config, references, out, None)
    return out


def test_it_loads_with_the_splits_of_the_corpus(published: Path, references: dict[str, str], tmp_path: Path) -> None:
    loaded = load_dataset(str(published), "annotations", cache_dir=str(tmp_path))
    corpus = ArtifactStore().read_table(ArtifactRef.parse(references["source_corpus"]))
    for split, part in loaded.items():
        own = corpus.filter(split=split)
        assert set(part["item_id"]) == set(own["item_id"])
        assert sorted(part["explanation"]) == sorted(own["explanation"])


def test_people_are_under_pseudonyms_in_tables_prompts_and_card(published: Path, references: dict[str, str]) -> None:
    names = {name.partition("/")[2] for name in references if name.startswith("preferences/")}
    assert len(names) == 4
    pairs = pl.read_parquet(published / "data" / "preferences" / "train.parquet")
    assert set(pairs["annotator_id"]) == set(pairs["rejected_annotator_id"]) == names
    # A shared adapter's prompts name whose answer is wanted, on their last line.
    last_lines = {turns[-1]["content"].splitlines()[-1] for turns in pairs["prompt"].to_list()}
    assert last_lines == {f"Annotator: {name}" for name in names}
    words = set((published / "README.md").read_text(encoding="utf-8").replace("`", " ").split())
    assert not words & set(PEOPLE)


def test_the_card_states_the_measured_risk(published: Path, references: dict[str, str]) -> None:
    card = DatasetCard.load(published / "README.md")
    stability = ArtifactStore().read_table(ArtifactRef.parse(references["stability"]))
    measured = stability.filter(
        pl.col("stratum").is_null(), condition="human", normalisation="none", classifier="ngrams"
    ).sort("group_size")
    row = next(line for line in card.text.splitlines() if line.startswith("| as written, by n-grams"))
    # A release is measured at 1, 5 and 10 explanations, whatever the analysis asks for.
    assert measured["group_size"].to_list() == [1, 5, 10]
    cells = row.removeprefix("| as written, by n-grams | ").split(" | ")
    for cell, accuracy in zip(cells, measured["accuracy"], strict=True):
        assert cell.startswith(f"{format_value(accuracy, share=True)} ")
    assert "No metadata of the annotators are published" in card.text
    assert "which of 4 annotators wrote them. Guessing would be right 25% of the time" in card.text
    assert "Not needed, as nobody was asked." in card.text


def test_pseudonyms_stay_the_same_from_export_to_export(config: ExperimentConfig, references: dict[str, str]) -> None:
    assert stages.release_dataset(config) == references


def test_published_metadata_are_in_a_table_and_refused_where_they_single_somebody_out(
    config: ExperimentConfig, references: dict[str, str], tmp_path: Path
) -> None:
    store = ArtifactStore()
    source = ArtifactRef.parse(references["source_corpus"])
    told = [json.dumps({"city": "Ulm" if who == "ada" else "Bern"}) for who in store.read_table(source)["annotator_id"]]
    known = store.read_table(source).with_columns(pl.Series("metadata", told))
    with_cities = {**references, "source_corpus": str(
        store.write("corpus", {"data.parquet": known}, metadata=store.metadata(source)))}  # fmt: skip
    release = config.release.model_copy(update={"annotator_columns": ("city",)})
    asked = config.model_copy(update={"release": release})
    with pytest.raises(ReleaseError, match=r"k = 1: 1 annotator in the release share a combination of city; below 5"):
        write_dataset(asked, with_cities, tmp_path / "out", "it would be useful")
    assert not (tmp_path / "out").exists()
    out = io.StringIO()
    print_privacy(Console(file=out, width=200), asked, with_cities)
    assert "shared by k = 1 at least" in out.getvalue()
    assert "strongest of" in out.getvalue()


def test_without_consent_nothing_is_computed_but_for_a_reason(config: ExperimentConfig, tmp_path: Path) -> None:
    silent = config.model_copy(update={"release": config.release.model_copy(update={"consent": "Not stated."})})
    with pytest.raises(ReleaseError, match=r"release\.consent is not stated: .*--force REASON"):
        require_releasable(silent, tmp_path / "out", None)
    with pytest.raises(ReleaseError, match="needs a reason"):
        require_releasable(silent, tmp_path / "out", "")
    require_releasable(silent, tmp_path / "out", "for the ethics board")
    with pytest.raises(ReleaseError, match="is there already"):
        require_releasable(config, ROOT, None)


def test_the_command_refuses_with_a_message_and_no_traceback(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "export-dataset", "deployments/configs/varierr/smollm2-135m.yaml",
         "--out", str(out)],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "release.consent is not stated" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
