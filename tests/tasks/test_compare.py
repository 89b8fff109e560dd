"""Two runs are found by what the user sees of them, and refused where they cannot be compared."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from evaluation_material import HABITS, NLI, QUICK, explain, generation, generations_frame, persona_corpus

from capo_core.errors import ConfigError
from schemas.artifacts import ArtifactRef
from schemas.config import TaskSpec
from schemas.frames import TABLES, empty
from tasks import tracking
from tasks.compare import check_comparable, collect_settings, compare_evaluations, find_run, publish_comparison
from tasks.storage.artifact_store import ArtifactStore

CORPUS = persona_corpus()


def write_run(beta: float, corpus: pl.DataFrame = CORPUS, task: TaskSpec = NLI) -> ArtifactRef:
    """Store a run's corpus, generations and evaluation with the lineage of both, and return the evaluation."""
    store = ArtifactStore()
    corpus_ref = store.write("corpus", {"data.parquet": corpus})
    rows = [
        generation("capo", name, f"i{n:03d}", "neutral", explain(name, n + (beta > 0.2)))
        for n in range(24, 32)
        for name in HABITS
    ]
    generated = store.write("generations", {"data.parquet": generations_frame(rows)}, metadata={"beta": beta})
    tables = {name: empty(columns) for name, columns in TABLES["evaluation"].items()}
    evaluation = store.write("evaluation", tables, metadata={"beta": beta, "task": task.name})
    for key, step, config, reads, writes in (
        ("g", "generate", {"capo": {"beta": beta}, "seed": 1}, [corpus_ref], generated),
        (
            "e",
            "evaluate",
            {"task": task.model_dump(mode="json"), "evaluation": QUICK.model_dump(mode="json")},
            [corpus_ref, generated],
            evaluation,
        ),
    ):
        store.record_lineage(
            f"{key}{evaluation.sha256[:8]}",
            {
                "step": step,
                "version": 1,
                "key": f"{key}{evaluation.sha256[:8]}",
                "config": config,
                "reads": [str(ref) for ref in reads],
                "writes": [str(writes)],
                "seconds": 1.0,
            },
        )
    return evaluation


def _write_page(folder: Path) -> None:
    (folder / "report.html").write_text("a page", encoding="utf-8")


def test_run_is_found_by_reference_hash_report_and_mlflow_run(home: Path) -> None:
    evaluation = write_run(0.1)
    report = ArtifactStore().write("report", fill=_write_page)
    record = {
        "step": "report",
        "version": 1,
        "key": "r",
        "config": {},
        "reads": [str(evaluation)],
        "writes": [str(report)],
    }
    ArtifactStore().record_lineage("r", {**record, "seconds": 1.0})
    run_id = tracking.start_flow_run("probe", "run probe", "flow-1", {})
    tracking.name_artifacts(run_id, writes=[evaluation])
    for name in (str(evaluation), evaluation.sha256[:12], str(report), run_id):
        found = find_run(name)
        assert found.evaluation == evaluation
        assert found.corpus.kind == "corpus"
        assert [ref.kind for ref in found.generations] == ["generations"]
        assert (found.task, found.config) == (NLI, QUICK)
    assert find_run(run_id).title == f"run probe ({run_id[:8]})"


def test_unknown_and_ambiguous_names_say_what_to_give(home: Path) -> None:
    with pytest.raises(ConfigError, match="neither an MLflow run id nor the reference"):
        find_run("nowhere")
    run_id = tracking.start_flow_run("probe", "experiment probe", "flow-2", {})
    tracking.name_artifacts(run_id, writes=[write_run(0.1), write_run(0.3)])
    with pytest.raises(ConfigError, match="names 2 evaluations, expected one"):
        find_run(run_id)


def test_runs_of_other_corpora_splits_or_tasks_are_refused(home: Path) -> None:
    first = find_run(str(write_run(0.1)))
    turned = CORPUS.with_columns(
        split=pl.when(pl.col("item_id") == "i000").then(pl.lit("validation")).otherwise("split")
    )
    with pytest.raises(ConfigError, match="different corpora or splits"):
        check_comparable(first, find_run(str(write_run(0.3, turned))))
    other = NLI.model_copy(update={"name": "paraphrase"})
    with pytest.raises(ConfigError, match="task 'nli' and 'paraphrase'"):
        check_comparable(first, find_run(str(write_run(0.3, task=other))))
    with pytest.raises(ConfigError, match="the same evaluation"):
        check_comparable(first, first)


def test_page_lists_the_setting_that_differs_and_lies_among_the_reports(home: Path) -> None:
    first, second = find_run(str(write_run(0.1))), find_run(str(write_run(0.3)))
    check_comparable(first, second)
    assert collect_settings(ArtifactStore(), first.evaluation)["generate · capo.beta"] == "0.1"
    page = compare_evaluations.fn(
        first.corpus,
        [first.generations, second.generations],
        ["one", "two"],
        [first.evaluation, second.evaluation],
        NLI.model_copy(update={"multiple_labels": False}),
        QUICK,
    )
    path = publish_comparison(page, first, second)
    assert path.parent == home / "reports"
    text = path.read_text(encoding="utf-8")
    assert "generate · capo.beta" in text
    assert f"capo compare {first.evaluation} {second.evaluation}".replace("&", "&amp;") in text
