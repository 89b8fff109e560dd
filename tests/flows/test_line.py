"""The whole line on the bundled corpus with a tiny random model: every artifact, every cache, every repair."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest
from small_line import EXAMPLE, SMALL
from tiny_model import save_tiny_model

from capo_core.config_file import load_config
from capo_core.errors import CorpusError, InputFileError
from flows import stages
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks import tracking
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*SMALL, f"model.id={save_tiny_model(tmp_path_factory.mktemp('tiny'), max_position_embeddings=4096).path}"]


@pytest.fixture(scope="module")
def config(overrides: list[str]) -> ExperimentConfig:
    return load_config(EXAMPLE, ["name=line", *overrides])


@pytest.fixture(scope="module")
def first_run(config: ExperimentConfig, prefect_server: None) -> dict[str, str]:
    return stages.run(config)


def _computed_steps(name: str) -> set[str]:
    """Return the labels of the steps that the newest flow run of an experiment computed, not took from the cache."""
    client = tracking.tracking_client()
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    order = ["attributes.start_time DESC"]
    runs = client.search_runs([experiment.experiment_id], "tags.`capo.level` = 'flow'", order_by=order)
    children = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{runs[0].info.run_id}'")
    return {str(run.info.run_name) for run in children}


def test_every_stage_leaves_its_artifact(first_run: dict[str, str]) -> None:
    kinds = {ArtifactRef.parse(reference).kind for reference in first_run.values()}
    assert kinds == {
        "annotations", "corpus", "agreement", "convergence", "stability", "style", "demonstrations", "preferences",
        "adapter", "value_profile", "generations", "retention", "evaluation", "verdicts", "validation_tasks",
        "validation_key", "report", "promotion",
    }  # fmt: skip
    adapters = [key for key in first_run if key.startswith("adapters/")]
    assert len(adapters) == 8  # (SFT, CAPO) × four annotators × one seed
    assert len([key for key in first_run if key.startswith("profiles/")]) == 4
    assert [key.replace("retention/", "adapters/") for key in first_run if key.startswith("retention/")] == adapters
    for reference in first_run.values():
        ArtifactStore().verify(ArtifactRef.parse(reference))
    assert not list((capo_home() / "scratch").glob("*/*")), "checkpoints are removed once the adapter is stored"


def test_the_report_is_where_a_user_finds_it(first_run: dict[str, str], config: ExperimentConfig) -> None:
    page = (capo_home() / "reports" / f"{config.name}.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "CAPO" in page


def test_the_profile_method_prompts_with_the_annotators_own_profile(first_run: dict[str, str]) -> None:
    store = ArtifactStore()
    plain = store.read_table(ArtifactRef.parse(first_run["generations/zero_shot/nobody/13"]))
    for who in ("ada", "ben", "chi", "dov"):
        profile = store.read_table(ArtifactRef.parse(first_run[f"profiles/{who}/13"]))
        assert profile["annotator_id"].to_list() == [who]
        prompted = store.read_table(ArtifactRef.parse(first_run[f"generations/profile/{who}/13"]))
        longer = prompted["n_prompt_tokens"] - plain["n_prompt_tokens"]
        # the tiny tokenizer has a token per byte, and the profile is the same for every item
        assert longer.n_unique() == 1
        assert longer[0] >= len(profile["profile"].item().encode()) > 0


def test_every_adapter_is_held_against_the_same_base_model(first_run: dict[str, str]) -> None:
    refs = [ArtifactRef.parse(ref) for key, ref in first_run.items() if key.startswith("retention/")]
    found = pl.concat([ArtifactStore().read_table(ref) for ref in refs]).filter(metric="neutral_perplexity")
    assert found.select("method", "target").n_unique() == 8
    assert found["base"].n_unique() == 1
    assert found["tuned"].n_unique() == 8


def test_every_mlflow_run_names_what_it_read_and_wrote(first_run: dict[str, str]) -> None:
    client = tracking.tracking_client()
    # A step that an earlier flow of this test session had computed has its run in that flow's experiment.
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`capo.level` = 'step'")
    written = {ref for run in runs for tag, ref in run.data.tags.items() if tag.startswith("capo.writes.")}
    assert set(first_run.values()) <= written
    reading = [run for run in runs if run.data.tags["capo.step"] not in ("ingest", "batch")]
    assert all(any(tag.startswith("capo.reads.") for tag in run.data.tags) for run in reading)


def test_a_second_run_computes_nothing(first_run: dict[str, str], config: ExperimentConfig) -> None:
    assert stages.run(config) == first_run
    assert _computed_steps(config.name) == set()


def test_changing_beta_reruns_only_capo_and_what_follows_it(first_run: dict[str, str], overrides: list[str]) -> None:
    changed = load_config(EXAMPLE, ["name=line", *overrides, "capo.beta=0.3"])
    stages.run(changed)
    people = ("ada", "ben", "chi", "dov")
    assert _computed_steps("line") == {
        *(f"train-capo {who} seed 13" for who in people),
        *(f"measure-retention capo {who} seed 13" for who in people),
        *(f"generate capo {who} seed 13" for who in people),
        *(f"decide-promotion capo {who}" for who in people),
        "evaluate", "judge capo", "judge-pairs", "summarise-verdicts", "export-validation", "report",
    }  # fmt: skip


@pytest.mark.parametrize("harm", ["delete", "damage"])
def test_a_lost_artifact_is_remade_alone(first_run: dict[str, str], config: ExperimentConfig, harm: str) -> None:
    ref = ArtifactRef.parse(first_run["preferences/ada"])
    path = ArtifactStore().path(ref) / "data.parquet"
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(bytes(path.stat().st_size))
    assert stages.run(config) == first_run
    assert _computed_steps(config.name) == {"preferences ada"}
    ArtifactStore().verify(ref)


def test_ratings_come_back_in(first_run: dict[str, str], config: ExperimentConfig, tmp_path: Path) -> None:
    stages.export_validation(config)
    exported = capo_home() / "validation" / config.name
    sheets = exported / "for_raters"
    assert {path.name for path in sheets.iterdir()} >= {"rating_page.html", "tasks_r01.csv", "tasks_r01.jsonl"}
    assert [path.name for path in (exported / "for_the_team").iterdir()] == ["TEAM.md"]
    filled = tmp_path / "ratings.csv"
    with (sheets / "ratings_r01.csv").open(encoding="utf-8-sig", newline="") as template:
        rows = [{**row, "answer": "A"} for row in csv.DictReader(template)]
    with filled.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    references = stages.import_validation(config, str(filled))
    ratings = ArtifactStore().read_table(ArtifactRef.parse(references["ratings"]))
    assert ratings.height == len(rows)
    assert ratings["answer"].unique().to_list() == ["A"]


def test_a_shared_adapter_serves_every_annotator(overrides: list[str], prefect_server: None) -> None:
    config = load_config(EXAMPLE, ["name=shared", *overrides, "adapter.layout=shared"])
    references = stages.evaluate(config)
    assert [key for key in references if key.startswith("adapters/")] == [
        "adapters/sft/shared/13",
        "adapters/capo/shared/13",
    ]
    answered = ArtifactStore().read_table(ArtifactRef.parse(references["generations/capo/shared/13"]))
    assert answered["annotator_id"].n_unique() == 4


def test_a_missing_file_fails_the_run_and_names_it(overrides: list[str], prefect_server: None) -> None:
    config = load_config(EXAMPLE, ["name=missing", *overrides, "corpus.paths=[nowhere.csv]"])
    with pytest.raises(InputFileError, match=r"nowhere\.csv: no such file; set CAPO_DATA_DIR"):
        stages.ingest(config)


def test_one_annotator_only_fails_the_run_and_says_so(
    overrides: list[str], prefect_server: None, tmp_path: Path
) -> None:
    path = tmp_path / "one.csv"
    rows = ["item_id,text_a,text_b,annotator_id,label,explanation"]
    rows += [f"{n},context {n},statement {n},ada,neutral,because {n}" for n in range(20)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    config = load_config(EXAMPLE, ["name=alone", *overrides, f"corpus.paths=[{path}]"])
    with pytest.raises(CorpusError, match="annotator"):
        stages.ingest(config)
