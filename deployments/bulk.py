"""`capo bulk`: a corpus beyond memory, from Parquet files to a folder of parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from capo_core.bulk.line import run_bulk
from capo_core.errors import ConfigError
from schemas.config import ExperimentConfig
from tasks.people import find_naming_rule, open_naming
from tasks.sources import find_source


def process_in_bulk(
    console: Console, config: ExperimentConfig, out: Path, annotators: Sequence[str], n_processes: int
) -> None:
    """Fill a folder with a corpus's parts, features and pairs, and print what became of every row.

    Raises:
        ConfigError: if the corpus is no table in Parquet, or names metadata of annotators apart.
    """
    corpus = config.corpus
    if corpus.format != "table" or not all(path.endswith(".parquet") for path in corpus.paths):
        raise ConfigError(
            f"corpus {corpus.name}: bulk reads tables in Parquet (corpus.format table, corpus.paths *.parquet); "
            "convert the files, or use capo ingest, which reads every format in memory"
        )
    if corpus.annotators_path is not None:
        raise ConfigError("corpus.annotators_path: in bulk, metadata of annotators are columns of the table; join them")
    sources = [Path(find_source(path).path) for path in corpus.paths]
    naming = open_naming(find_naming_rule(corpus))
    names = [naming.name(name) if naming is not None else name for name in annotators]
    with Progress(console=console, transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def report(stage: str, n_done: int, n_parts: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=n_parts)
            progress.update(bars[stage], completed=n_done)

        counts = run_bulk(sources, out, config, names, n_processes=n_processes, naming=naming, report=report)
    table = Table("", "rows", box=None)
    for name, n in counts.items():
        table.add_row(name, f"{n:,}")
    console.print(table)
    console.print(f"{out}", highlight=False, soft_wrap=True)
