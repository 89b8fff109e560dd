"""What a run prints at its end: the table of results and where to look further."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from schemas.artifacts import ArtifactRef
from tasks.artifact_store import ArtifactStore
from tasks.home import capo_home
from tasks.tracking import tracking_uri

_METHODS = {
    "human": "human text",
    "majority": "commonest label",
    "zero_shot": "zero-shot",
    "history": "history",
    "sft": "SFT",
    "capo": "CAPO",
}
NOT_MEASURED = "–"


def print_results(console: Console, evaluation: ArtifactRef) -> None:
    """Print the main figures by method, over all annotators, each with its interval."""
    metrics = ArtifactStore().read_table(evaluation).filter(pl.col("annotator_id") == "all")
    size = _choose_group_size(metrics)
    chance = 1 / max(1, _count_annotators(evaluation))
    plain = {"condition": None, "group_size": None}
    imitation = {"metric": "attribution_accuracy", "decision": "sampled", "group_size": size}
    columns = [
        ("Label agreement\nconstrained", {"metric": "label_agreement", "decision": "constrained", **plain}),
        ("\nsampled", {"metric": "label_agreement", "decision": "sampled", **plain}),
        ("Readable\nsampled", {"metric": "parse_rate", "decision": "sampled", **plain}),
        ("ROUGE-L\nsampled", {"metric": "rouge_l", "decision": "sampled", **plain}),
        (f"Attributed, k={size}\nraw", {**imitation, "condition": "raw"}),
        ("\nsurface-norm.", {**imitation, "condition": "surface_normalised"}),
    ]
    n_seeds = metrics["n_seeds"].max()
    table = Table(title=f"Mean over annotators [95% interval]; seeds: {n_seeds}; chance in attribution: {chance:.2f}")
    table.add_column("Method")
    for title, _ in columns:
        table.add_column(title, justify="right")
    for method, name in _METHODS.items():
        rows = metrics.filter(pl.col("method") == method)
        if not rows.is_empty():
            table.add_row(name, *(_format_figure(rows, wanted) for _, wanted in columns))
    console.print(table)


def _choose_group_size(metrics: pl.DataFrame) -> int | None:
    """Return the group size nearest to 5 that was measured on generations."""
    sizes = metrics.filter((pl.col("metric") == "attribution_accuracy") & pl.col("value").is_not_null())["group_size"]
    return min(sizes.unique().to_list(), key=lambda size: abs(size - 5), default=None)


def _count_annotators(evaluation: ArtifactRef) -> int:
    annotators = ArtifactStore().read_table(evaluation)["annotator_id"].unique().to_list()
    return len([name for name in annotators if name != "all"])


def _format_figure(rows: pl.DataFrame, wanted: dict[str, str | int | None]) -> str:
    """Return `.71 [.64, .78]`, or a dash where the figure does not exist or was not measured."""
    for column, value in wanted.items():
        # Rows about people have no decision: theirs is neither sampled nor constrained.
        rows = rows.filter(pl.col(column).eq_missing(value) | (pl.col(column).is_null() & (column == "decision")))
    if rows.is_empty() or rows["value"][0] is None:
        return NOT_MEASURED
    row = rows.row(0, named=True)
    interval = "" if row["ci_low"] is None else f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    return f"{row['value']:.2f}{interval}"


def print_places(console: Console, name: str) -> None:
    """Print where the report and the two user interfaces are, with the commands that open them."""
    binaries = Path(sys.executable).parent
    report = capo_home() / "reports" / f"{name}.html"
    lines = []
    if report.exists():
        lines.append(("Report", str(report), "open it in a browser"))
    lines.append(
        ("MLflow", f"experiment {name}", f"{binaries}/mlflow ui --workers 1 --backend-store-uri {tracking_uri()}")
    )
    if api_url := os.environ.get("PREFECT_API_URL"):
        lines.append(("Prefect", "runs of this flow", api_url.removesuffix("/api")))
    else:
        home = os.environ.get("PREFECT_HOME")
        prefix = f"PREFECT_HOME={home} " if home else ""
        lines.append(("Prefect", "runs of this flow", f"{prefix}{binaries}/prefect server start"))
    for title, what, how in lines:
        console.print(f"[bold]{title}[/bold]: {what}\n    {how}", soft_wrap=True, highlight=False)
