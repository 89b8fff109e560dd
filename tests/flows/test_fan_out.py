"""Where steps are computed: the same artifacts from processes, a Ray cluster whose workers are killed, and jobs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
import psutil
import pytest
import torch
from pydantic import ValidationError
from small_line import EXAMPLE, SMALL
from tiny_model import save_tiny_model

from capo_core.bundled_models import ENCODER_ID
from capo_core.config_file import load_config
from capo_core.errors import ConfigError, ModelError, StackError
from flows import stages
from flows.experiment import experiment
from flows.fan_out import task_runner
from flows.jobs import compute_step
from schemas.artifacts import ArtifactRef, ModelRef, SourceFile
from schemas.config import ExperimentConfig
from schemas.experiment import ExperimentMatrix
from tasks.fan_out import FanOut, read_fan_out
from tasks.ingest import ingest_annotations
from tasks.jobs import count_gpus, read_inputs, write_inputs
from tasks.sources import find_model_here, locate_model
from tasks.step import find_step
from tasks.storage.artifact_store import ArtifactStore
from tasks.train import train_capo_adapter

ONLY_SFT = ["generation.methods=[sft]", "judge.methods=[]", "human_validation.methods=[sft]"]
REF = ArtifactRef(kind="preferences", sha256="0" * 64, rows=3, schema_version=1)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", FanOut("threads", 1)),
        ("threads:4", FanOut("threads", 4)),
        ("processes:2", FanOut("processes", 2)),
        ("ray", FanOut("ray", None)),
        ("ray:2", FanOut("ray", 2)),
        ("ray://head.cluster:10001", FanOut("ray", None, "ray://head.cluster:10001")),
        ("jobs:8", FanOut("jobs", 8)),
    ],
)
def test_the_setting_has_these_forms(setting: str, expected: FanOut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPO_FANOUT", setting)
    assert read_fan_out() == expected


@pytest.mark.parametrize("setting", ["thread", "threads:0", "processes", "jobs", "ray://head", "ray://a b:1", "dask:3"])
def test_any_other_form_is_refused_with_the_ones_there_are(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPO_FANOUT", setting)
    with pytest.raises(ConfigError, match=rf"CAPO_FANOUT={setting}.*:"):
        read_fan_out()


def test_a_step_travels_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = cloudpickle.dumps(train_capo_adapter)
    assert cloudpickle.loads(sent) is train_capo_adapter
    assert len(sent) < 200  # a name, no code


@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("tasks.train", "SHARED"), ("tasks.nowhere", "x"), ("tasks.step", "step")]
)
def test_what_is_no_step_is_not_run_by_name(module: str, name: str) -> None:
    with pytest.raises((ValueError, ModuleNotFoundError)):
        find_step(module, name)


def test_inputs_survive_the_way_as_json() -> None:
    config = load_config(EXAMPLE)
    model = ModelRef(id="m", path="/somewhere", fingerprint="1234567")
    inputs = {
        "preferences": [REF, REF], "sft_adapter": REF, "reference": None, "target": "ada", "base": model,
        "model": config.model, "adapter": config.adapter, "capo": config.capo, "seed": 13,
    }  # fmt: skip
    written = write_inputs(train_capo_adapter, inputs)
    assert read_inputs(train_capo_adapter, written) == inputs
    with pytest.raises(ValidationError):
        read_inputs(train_capo_adapter, {**written, "seed": "thirteen"})


def test_a_training_asks_for_as_many_gpus_as_it_has_processes() -> None:
    config = load_config(EXAMPLE)
    assert count_gpus({"capo": config.capo, "seed": 13}) == 1
    assert count_gpus({"capo": config.capo.model_copy(update={"n_processes": 4})}) == 4


def test_a_model_is_found_again_where_its_path_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPO_HOME", str(tmp_path))
    here = locate_model.fn(ENCODER_ID, None)
    there = here.model_copy(update={"path": "/on/another/machine"})
    assert find_model_here(there) == here
    with pytest.raises(ModelError, match=r"install the same version on all machines"):
        find_model_here(there.model_copy(update={"fingerprint": "another-content"}))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    model = save_tiny_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096).path
    return load_config(EXAMPLE, [*SMALL, f"model.id={model}", "name=fan-out", *ONLY_SFT])


@pytest.fixture(scope="module")
def in_threads(
    config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> dict[str, str]:
    with one_torch_thread(), _elsewhere(tmp_path_factory.mktemp("threads")):
        return stages.train(config)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute on one thread, as the other processes do, which read the number when they start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _elsewhere:  # noqa: N801  (reads as a verb where it is used)
    """A capo home and a result store of one run's own, so that nothing comes from another's cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

        self.patch.setenv("CAPO_HOME", str(self.folder / "home"))
        # Sums in another number of threads round differently.
        self.patch.setenv("OMP_NUM_THREADS", "1")
        self.settings = temporary_settings({PREFECT_LOCAL_STORAGE_PATH: self.folder / "results"})
        self.settings.__enter__()

    def __exit__(self, *error: object) -> None:
        self.settings.__exit__(*error)
        self.patch.undo()


def _train_with(setting: str, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> dict[str, str]:
    patch.setenv("CAPO_FANOUT", setting)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    return stages.train.with_options(task_runner=task_runner())(config)


def test_processes_leave_the_same_artifacts(
    in_threads: dict[str, str], config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _elsewhere(tmp_path):
        assert _train_with("processes:2", config, monkeypatch) == in_threads
        for reference in in_threads.values():
            ArtifactStore().verify(ArtifactRef.parse(reference))


@pytest.mark.slow
def test_a_matrix_on_ray_has_the_same_results_though_both_workers_are_killed(
    config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory, prefect_server: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("prefect_ray", reason="Ray not tested: pip install 'capo[ray]'")
    matrix = ExperimentMatrix(
        name="on-ray", configs=("nli.yaml",), methods=("sft",), layouts=("per_annotator", "shared"), seeds=(13, 14)
    )
    with one_torch_thread(), _elsewhere(tmp_path_factory.mktemp("matrix-in-threads")):
        here = experiment(matrix, [config])
        table = ArtifactStore().read_table(ArtifactRef.parse(here["experiment"]))
    monkeypatch.setenv("CAPO_FANOUT", "ray:2")
    with _elsewhere(tmp_path_factory.mktemp("matrix-on-ray")), _killing_trainers(2) as killed:
        assert experiment.with_options(task_runner=task_runner())(matrix, [config]) == here
        assert ArtifactStore().read_table(ArtifactRef.parse(here["experiment"])).equals(table)
    assert len(killed) == 2
    assert set(table["layout"]) == {"per_annotator", "shared"}


class _killing_trainers:  # noqa: N801
    """Kill so many Ray workers of this process while they train."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.killed: list[int] = []
        self.is_over = threading.Event()

    def __enter__(self) -> list[int]:
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self.killed

    def _watch(self) -> None:
        while len(self.killed) < self.n and not self.is_over.wait(0.2):
            for process in _training_workers():
                time.sleep(0.5)  # somewhere in the middle
                process.kill()
                self.killed.append(process.pid)
                break

    def __exit__(self, *error: object) -> None:
        self.is_over.set()
        self.thread.join()
        import ray

        ray.shutdown()


def _training_workers() -> Iterator[psutil.Process]:
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] == ["ray::train-sft"]:
                yield process
        except psutil.Error:
            continue


def test_without_a_deployment_for_jobs_it_says_what_to_do(
    config: ExperimentConfig, prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _elsewhere(tmp_path), pytest.raises(StackError, match="no deployment step/step; run capo up"):
        _train_with("jobs:1", config, monkeypatch)


def test_the_flow_of_a_job_computes_a_step_that_is_found_by_its_key(prefect_server: None, tmp_path: Path) -> None:
    config = load_config(EXAMPLE)
    source = Path(__file__).parents[2] / "capo_core" / "corpora" / "example" / "nli.csv"
    file = SourceFile(path=str(source), name=source.name, sha256="0" * 64)
    inputs = {
        "sources": [file], "annotators_source": None, "corpus_format": "table", "task": config.task, "naming": None,
    }  # fmt: skip
    with _elsewhere(tmp_path):
        compute_step(
            "tasks.ingest", "ingest_annotations", "ingest", write_inputs(ingest_annotations, inputs),
            "00000000-0000-0000-0000-000000000000",
        )  # fmt: skip
        (record,) = ArtifactStore().lineage()
        assert record["step"] == "ingest"
        ArtifactStore().verify(ArtifactRef.parse(record["returns"][0]))
