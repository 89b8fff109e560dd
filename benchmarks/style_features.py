"""Rate and memory of style features against other libraries: `python -m benchmarks.style_features [--quick]`.

The rows are made of explanations of a corpus (`vary_explanations`), by default the shipped examples. Every figure is
taken in a process of its own, ours and the peers' in turns; the peers, slow, on fewer rows, and their rate is taken to
hold for more. Rates are given by the wall and by processor time, which other work on the machine disturbs less; capo's
is times its threads.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from statistics import median

import polars as pl

from benchmarks.peak_memory import PeakMemory
from benchmarks.style_peers import PEERS
from benchmarks.varied_explanations import vary_explanations
from capo_core.stylometry.features import NAMES, style_features

_BLOCK = 1_000_000
_PEER_ROWS = 2_000
_TEXTS = ("explanation", "text_a", "text_b")


def main() -> None:
    """Print the machine, capo's rates and memory, the peers' rates with ratios, and capo's on ten times the rows."""
    options = _read_options()
    if options.measure:
        print(json.dumps(_measure(options.corpus, options.rows)))
        return
    _print_machine()
    peer_rows = _PEER_ROWS // (4 if options.quick else 1)
    ours, peers = _run_in_turns(options, peer_rows, turns=1 if options.quick else 3)
    rate = _print_ours(f"{options.rows:,} rows", ours)
    for name, runs in peers.items():
        _print_peer(name, runs, rate, peer_rows)
    if not options.quick:
        larger = _print_ours(f"{10 * options.rows:,} rows", [_run_ours(options.corpus, 10 * options.rows)])
        print(f"  seconds a row there / here, by processor time (1 is linear): {rate['cpu'] / larger['cpu']:.2f}")


def _read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    examples = files("capo_core.corpora") / "example"
    default = [Path(str(examples / name)) for name in ("nli.csv", "paraphrase.csv")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn, few rows for peers, not ten times --rows")
    parser.add_argument("--rows", type=int, default=1_000_000, help="explanations to measure")
    parser.add_argument("--corpus", type=Path, nargs="+", default=default, help=f"CSV or Parquet files with {_TEXTS}")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _read_corpus(paths: list[Path]) -> pl.DataFrame:
    """Return the texts of all files that have an explanation."""
    readers = [pl.read_parquet if path.suffix == ".parquet" else pl.read_csv for path in paths]
    return pl.concat([read(path).select(_TEXTS) for read, path in zip(readers, paths, strict=True)]).drop_nulls()


def _measure(paths: list[Path], n_rows: int) -> dict[str, float]:
    """Return seconds of the wall and the processor, and the most memory in MB above that before, of one call.

    A first call on few rows loads the compiled pass; its seconds are given apart.
    """
    corpus = _read_corpus(paths)
    starts = range(0, n_rows, _BLOCK)
    rows = pl.concat([vary_explanations(corpus, min(_BLOCK, n_rows - start), seed=start) for start in starts])
    start = time.perf_counter()
    style_features(rows[:100])
    first = time.perf_counter() - start
    with PeakMemory() as memory:
        wall, cpu = time.perf_counter(), time.process_time()
        n_measured = len(style_features(rows))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert n_measured == n_rows
    length = rows["explanation"].str.len_chars().mean()
    return {"wall": wall, "cpu": cpu, "peak_mb": memory.peak / 1e6, "first": first, "rows": n_rows, "length": length}  # type: ignore[dict-item]


def _run_in_turns(
    options: argparse.Namespace, peer_rows: int, turns: int
) -> tuple[list[dict[str, float]], dict[str, list[dict]]]:
    """Return what ours and each peer gave, one run of each per turn; a peer that does not run is named and left out."""
    ours: list[dict[str, float]] = []
    peers: dict[str, list[dict]] = {name: [] for name in PEERS}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(
            json.dumps(vary_explanations(_read_corpus(options.corpus), peer_rows)["explanation"].to_list())
        )
        for _ in range(turns):
            ours.append(_run_ours(options.corpus, options.rows))
            for name, runs in peers.items():
                script = str(Path(__file__).with_name("style_peers.py"))
                done = _run([options.peers_python, script, name, str(texts)])
                if done.returncode:
                    print(
                        f"  {name} does not run here (pip install {name}, or name its interpreter by --peers-python):"
                    )
                    print("   ", done.stderr.strip().splitlines()[-1])
                else:
                    runs.append(json.loads(done.stdout.splitlines()[-1]))
    return ours, {name: runs for name, runs in peers.items() if runs}


def _run_ours(corpus: list[Path], n_rows: int) -> dict[str, float]:
    """Return what `_measure` gives in a process of its own."""
    module = [sys.executable, "-m", "benchmarks.style_features", "--measure"]
    done = _run([*module, "--rows", str(n_rows), "--corpus", *map(str, corpus)])
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _print_machine() -> None:
    """Print what the figures were measured on."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("polars", "numba", "numpy"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, {pl.thread_pool_size()} threads; {versions}")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} processes")


def _print_ours(what: str, runs: list[dict[str, float]]) -> dict[str, float]:
    """Print capo's figures and return its rates in rows a second, medians over the runs."""
    rate = {clock: median(run["rows"] / run[clock] for run in runs) for clock in ("wall", "cpu")}
    rate["cpu"] *= pl.thread_pool_size()
    length, peak, first = runs[0]["length"], max(run["peak_mb"] for run in runs), median(run["first"] for run in runs)
    print(f"capo, {len(NAMES)} features, {what} of {length:.0f} characters:")
    print(f"  {rate['wall']:,.0f} rows/s by the wall, {rate['cpu']:,.0f} by processor time x threads")
    print(f"  {peak:,.0f} MB at most above the data, result included; first call {first:.1f} s more")
    return rate


def _print_peer(name: str, runs: list[dict], ours: dict[str, float], n_rows: int) -> None:
    """Print a peer's rates and the ratio of ours to them."""
    wall, cpu = (median(run["rows"] / run[f"{clock}_seconds"] for run in runs) for clock in ("wall", "cpu"))
    print(
        f"{name} {runs[0]['version']}, {n_rows:,} rows (rate taken to hold for more): {wall:,.0f} rows/s by the wall, "
        f"{cpu:,.0f} by processor time; capo / {name}: {ours['wall'] / wall:.0f} and {ours['cpu'] / cpu:.0f}"
    )


if __name__ == "__main__":
    main()
