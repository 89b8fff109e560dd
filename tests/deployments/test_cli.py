"""The command line as a user meets it: exit codes, messages, the artifact store's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from schemas.frames import CORPUS, empty
from tasks.storage.artifact_store import ArtifactStore

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = "deployments/configs/example/nli-smollm2-135m.yaml"
MATRIX = "deployments/experiments/example.yaml"


def _capo(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CAPO_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_lists_every_stage(home: Path) -> None:
    done = _capo("--help", home=home)
    assert done.returncode == 0
    for stage in (
        "run", "ingest", "analyze", "pairs", "train", "generate", "evaluate", "judge",
        "export-validation", "import-validation", "report", "compare", "experiment", "doctor", "artifacts",
    ):  # fmt: skip
        assert stage in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "No such command"),
        (["run"], "Missing argument"),
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["run", EXAMPLE, "--set", "capo.betta=1"], "capo.betta: unknown key; allowed here"),
        (["experiment", EXAMPLE], "task: unknown key; allowed here: configs, layouts"),
        (["experiment", MATRIX, "--set", "overrides.capo.betta=1"], "capo.betta: unknown key; allowed here"),
        (["artifacts", "show", "ffff"], "names 0 artifacts"),
        (["artifacts", "ls", "--kind", "models"], "no such kind"),
    ],
)
def test_bad_usage_and_configuration_exit_with_two_and_no_traceback(
    arguments: list[str], says: str, home: Path
) -> None:
    done = _capo(*arguments, home=home)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_names_a_missing_corpus_file_and_what_to_do(home: Path, tmp_path: Path) -> None:
    done = _capo("doctor", "deployments/configs/varierr/smollm2-135m.yaml", "--data-dir", str(tmp_path), home=home)
    assert done.returncode == 1
    assert "missing" in done.stdout
    assert "CAPO_DATA_DIR" in done.stdout


def test_doctor_is_content_with_the_example(home: Path) -> None:
    done = _capo("doctor", EXAMPLE, home=home)
    assert done.returncode == 0, done.stdout
    assert "nli.csv" in done.stdout


def test_artifacts_are_listed_shown_and_verified(home: Path) -> None:
    store = ArtifactStore()
    ref = store.write("corpus", {"data.parquet": empty(CORPUS)}, metadata={"seed": 13})
    store.record_lineage("k", {"step": "split", "writes": [str(ref)]})
    assert ref.sha256[:16] in _capo("artifacts", "ls", home=home).stdout
    shown = _capo("artifacts", "show", ref.sha256[:8], home=home)
    assert shown.returncode == 0
    assert "split" in shown.stdout
    whole = _capo("artifacts", "verify", home=home)
    assert whole.returncode == 0
    assert "1 artifacts verified, 0 damaged" in whole.stdout
    (store.path(ref) / "data.parquet").write_bytes(b"x")
    damaged = _capo("artifacts", "verify", home=home)
    assert damaged.returncode == 1
    assert ref.sha256 in damaged.stdout


@pytest.mark.parametrize("variable", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
def test_a_server_that_does_not_answer_is_named_with_what_to_do(
    variable: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = _capo(*(["ingest", EXAMPLE] if variable == "PREFECT_API_URL" else ["models", "ls"]), home=home)
    assert done.returncode == 1
    assert "http://127.0.0.1:9/api" in done.stderr.splitlines()[-1]
    assert "give the same command again" in done.stderr.splitlines()[-1]


def test_a_terminated_command_runs_its_exit_handlers() -> None:
    # Prefect stops its temporary server in one.
    program = (
        "import atexit, os, signal; from deployments import cli; atexit.register(print, 'server stopped'); "
        "cli.app = lambda: os.kill(os.getpid(), signal.SIGTERM); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout == "server stopped\n"


def test_garbage_is_shown_first_and_removed_when_asked(home: Path) -> None:
    store = ArtifactStore()
    ref = store.write("corpus", {"data.parquet": empty(CORPUS)}, metadata={"seed": 13})
    then = time.time() - 40 * 86_400
    os.utime(store.path(ref), (then, then))
    shown = _capo("artifacts", "gc", home=home)
    assert shown.returncode == 0, shown.stderr
    assert f"artifacts/corpus/{ref.sha256}: nothing names it" in shown.stdout
    assert "1 things older than 30 days" in shown.stdout
    assert "would be removed" in shown.stdout
    assert store.path(ref).exists()
    assert "1 things older than 30 days" in _capo("artifacts", "gc", "--yes", home=home).stdout
    assert not store.path(ref).exists()


def test_bulk_counts_every_row_and_refuses_what_is_no_parquet(tmp_path: Path) -> None:
    rows = pl.read_csv(ROOT / "capo_core" / "corpora" / "example" / "nli.csv")
    rows.write_parquet(tmp_path / "rows.parquet")
    table = ("--set", f"corpus.paths=[{tmp_path / 'rows.parquet'}]", "--set", "corpus.max_items=null")
    out = ("--out", str(tmp_path / "out"), "--annotator", "ada", "--processes", "1")
    done = _capo("bulk", EXAMPLE, *out, *table, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    shown = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    assert int(shown["rows_in"]) == rows.height
    assert int(shown["pairs.ada"]) == sum(
        pl.read_parquet(path).height for path in (tmp_path / "out" / "preferences" / "ada").glob("part-*.parquet")
    )
    refused = _capo("bulk", EXAMPLE, "--out", str(tmp_path / "other"), home=tmp_path / "home")
    assert refused.returncode == 2
    assert "bulk reads tables in Parquet" in refused.stderr
