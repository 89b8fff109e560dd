"""Time and memory of corpora of any size: `python -m benchmarks.scale [--rows 10_000 100_000 …] [--processes 2]`.

Raw rows of four annotators, made of the shipped example (`vary_explanations`), go from Parquet through ingest, contexts
and splits, features of style and one annotator's preference pairs (`capo_core.bulk`). Memory is the most that the
process and its children held together above what its libraries take; making the rows is not counted. The peer is capo's
own way in memory, on the sizes that it can hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import polars as pl
import psutil
import pyarrow.parquet as pq

from benchmarks.peak_memory import PeakMemory
from benchmarks.varied_explanations import ROWS_PER_ITEM, vary_explanations
from capo_core.config_file import load_config

EXAMPLE = Path(__file__).parent.parent / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
ANNOTATORS = ("ada", "ben", "chi", "dov")
_BLOCK = 1_000_000
_MAX_IN_MEMORY = 100_000


def main() -> None:
    """Print one line per size and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(*options.measure, options.processes)))
        return
    from benchmarks.machine import name_processor

    print(f"{name_processor()}, {options.processes} processes, load {psutil.getloadavg()[0]:.1f}")
    for n_rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="capo-scale-") as folder:
            raw = Path(folder) / "raw.parquet"
            write_rows(raw, n_rows)
            size = raw.stat().st_size / 1e6
            for way in ("parts", "memory") if n_rows <= _MAX_IN_MEMORY else ("parts",):
                found = _in_a_process(way, raw, Path(folder) / way, options.processes)
                seconds = found["seconds"]
                print(
                    f"{n_rows:>12,} rows ({size:,.0f} MB of Parquet), {way:<6}: {seconds:8.1f} s, "
                    f"{n_rows / seconds:9,.0f} rows/s, {found['peak_mb']:7,.0f} MB; {found['n_pairs']:,} pairs",
                    flush=True,
                )


def write_rows(path: Path, n_rows: int) -> None:
    """Write a table of annotations, four annotators to an item, every item with texts of its own."""
    example = pl.read_csv(str(files("capo_core.corpora") / "example" / "nli.csv"))
    names = example["label"].unique().sort()
    writer: pq.ParquetWriter | None = None
    for start in range(0, n_rows, _BLOCK):
        n = min(_BLOCK, n_rows - start)
        place = pl.int_range(start, start + n, eager=True)
        item = place // ROWS_PER_ITEM
        rows = vary_explanations(example, n, seed=start).with_columns(
            ("i" + item.cast(pl.String)).alias("item_id"),
            *(pl.concat_str(name, item.cast(pl.String), separator=" ").alias(name) for name in ("text_a", "text_b")),
            pl.Series("annotator_id", ANNOTATORS)[(place % ROWS_PER_ITEM).to_list()],
            names[((place * 7 + item) % len(names)).to_list()].alias("label"),
        )
        table = rows.to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _in_a_process(way: str, raw: Path, out: Path, n_processes: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "--processes", str(n_processes)]
    done = subprocess.run([*command, "--measure", way, str(raw), str(out)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(way: str, raw: str, out: str, n_processes: int) -> dict[str, float]:
    config = load_config(EXAMPLE, ["corpus.max_items=null"])
    with PeakMemory() as memory:
        started = time.perf_counter()
        if way == "parts":
            from capo_core.bulk.line import run_bulk

            n_pairs = run_bulk([Path(raw)], Path(out), config, ["ada"], n_processes=n_processes)["pairs.ada"]
        else:
            n_pairs = _in_memory(Path(raw), config)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mb": memory.peak / 1e6, "n_pairs": n_pairs}


def _in_memory(raw: Path, config) -> int:
    from capo_core.corpora import read_corpus
    from capo_core.preference_pairs import build_preferences
    from capo_core.splits import assign_splits
    from capo_core.stylometry.features import style_features

    corpus = assign_splits(read_corpus([raw], "table", config.task).annotations, config.splits)
    style_features(corpus)
    return build_preferences(corpus, "ada", config.task, config.pairs, tag=None)[0].height


if __name__ == "__main__":
    main()
