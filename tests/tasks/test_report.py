"""The report is made from artifacts: every table where it belongs, judges counted once, the summary for Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from report_samples import (
    JUDGES,
    frame,
    make_data,
    make_judge_comparisons,
    make_judge_metrics,
    make_raters,
    metric_row,
)

from schemas.artifacts import ArtifactRef
from schemas.frames import METRICS, TABLES, VERDICTS, empty
from tasks.report import REPORT_FILE, SUMMARY_FILE, publish_report, write_report
from tasks.storage.artifact_store import ArtifactStore

DATA = make_data()


def put(kind: Any, metadata: dict[str, Any] | None = None, **tables: pl.DataFrame) -> ArtifactRef:
    """Store an artifact whose tables are given by their file name without its ending; the others are empty."""
    given = {f"{name}.parquet": table for name, table in tables.items()}
    all_tables = {name: given.get(name, empty(columns)) for name, columns in TABLES[kind].items()}
    return ArtifactStore().write(kind, all_tables, metadata=metadata or {})


def make_verdicts() -> pl.DataFrame:
    """Return three verdicts of a judge who tells its prompt's tokens, 100 each, and not its answers'."""
    given = {"question_id": [f"q{n}" for n in range(3)], "judge": [JUDGES[1]] * 3, "status": ["ok", "ok", "failed"]}
    table = pl.DataFrame({**given, "n_prompt_tokens": [100] * 3})
    others = [pl.lit(None, dtype).alias(name) for name, dtype in VERDICTS.items() if name not in table.columns]
    return table.with_columns(others).select(list(VERDICTS)).cast(dict(VERDICTS))


def test_page_shows_every_artifact_and_summary_stands_beside_it(home: Path) -> None:
    adapters = [
        put("adapter", {"method": method, "target": who, "seed": seed}, training_log=log)
        for method, who, seed, log in DATA.training_logs
    ]
    verdicts = make_verdicts()
    rated = frame([metric_row("capo", "human_attribution_accuracy", 0.7, decision=None)], METRICS)
    report = write_report.fn(
        DATA.config,
        put("annotations", {"counts": DATA.annotations_counts}, quarantine=DATA.quarantine),
        put("corpus", data=DATA.corpus),
        put("agreement", data=DATA.agreement, items=DATA.item_labels, subjectivity=DATA.subjectivity),
        put("convergence", data=DATA.convergence, fits=DATA.convergence_fits),
        put("stability", data=DATA.stability, annotators=DATA.stability_annotators),
        put("style", data=DATA.style.features, reliability=DATA.style.reliability, words=DATA.style.words),
        [put("preferences", {"pairs": {"same_label": 5}, "drops": {}, "annotator_id": "ada"})],
        adapters,
        [put("retention", data=DATA.retention)],
        [put("value_profile", data=DATA.value_profiles)],
        [put("generations", data=DATA.generations)],
        put("evaluation", data=DATA.metrics, comparisons=DATA.comparisons),
        # What one judge was asked, and the summary that holds the same verdicts once more.
        [
            put("verdicts", {"part": 1}, data=verdicts),
            put("verdicts", data=verdicts, metrics=make_judge_metrics(), comparisons=make_judge_comparisons()),
        ],
        put("ratings", metrics=rated, raters=make_raters()),
        {},
    )
    folder = ArtifactStore().path(report)
    texts = [(folder / name).read_text(encoding="utf-8") for name in (REPORT_FILE, SUMMARY_FILE)]
    page, summary = (" ".join(text.split()) for text in texts)
    assert "Informative in 1 of 3 ways of asking" in page
    assert "1 of 4 attention checks passed, 3 needed" in page
    usage = page[page.index("What judging used") :]
    # Two answered and one failed question of 100 tokens each, once and not twice.
    assert ">300</td>" in usage.replace(" ", "")
    assert "| SFT | .62 |" in summary
    assert publish_report(report, "sample").read_text(encoding="utf-8").startswith("<!doctype html>")
