"""The artifact store as a person reads it: list, show, verify, collect garbage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from capo_core.errors import ConfigError, DamagedArtifactError
from schemas.artifacts import ArtifactRef
from schemas.frames import TABLES
from tasks.storage.artifact_store import ArtifactStore

_RECORDS, _RESULTS = "lineage records", "results"


def print_inventory(console: Console, kind: str | None) -> None:
    """Print where the artifacts are and one line for each: kind, hash, rows, size."""
    if kind is not None and kind not in TABLES:
        raise ConfigError(f"--kind {kind}: no such kind; one of {', '.join(TABLES)}")
    store = ArtifactStore()
    console.print(store.location, markup=False, highlight=False, soft_wrap=True)
    table = Table()
    for title, justify in (("Kind", "left"), ("sha256", "left"), ("Rows", "right"), ("KiB", "right"), ("", "left")):
        table.add_column(title, justify=justify)
    for (found, sha256), n_bytes in store.sizes().items():
        if kind is not None and found != kind:
            continue
        size = n_bytes / 1024
        try:
            ref = store.find(found, sha256)
        except (DamagedArtifactError, ValueError):
            table.add_row(found, sha256[:16], "?", f"{size:,.0f}", "[red]damaged[/red]")
        else:
            table.add_row(found, sha256[:16], f"{ref.rows:,}", f"{size:,.0f}", "")
    console.print(table)


def find_artifact(store: ArtifactStore, text: str) -> ArtifactRef:
    """Return the artifact that a reference, a sha256 or its beginning names.

    Raises:
        ConfigError: if none or several do.
    """
    wanted = text.partition("?")[0].removeprefix("capo:").rpartition("/")[2]
    matches = [(kind, sha256) for kind, sha256 in store.folders() if wanted and sha256.startswith(wanted)]
    if len(matches) != 1:
        raise ConfigError(f"{text}: names {len(matches)} artifacts; `capo artifacts ls` shows them all")
    return store.find(*matches[0])


def print_artifact(console: Console, text: str) -> None:
    """Print an artifact's manifest, the head of each table, and every computation that wrote it."""
    store = ArtifactStore()
    ref = find_artifact(store, text)
    manifest = store.verify(ref)
    console.print(str(ref), soft_wrap=True, highlight=False)
    console.print_json(manifest.model_dump_json())
    for name in TABLES[ref.kind]:
        console.print(f"\n{name}", style="bold")
        console.print(str(store.read_table(ref, name).head(5)), markup=False, highlight=False)
    for record in store.lineage():
        if str(ref) in record["writes"]:
            console.print("\ncomputed by", style="bold")
            console.print_json(json.dumps(record))


def print_verification(console: Console) -> bool:
    """Re-hash every artifact, lineage record and result; print the damaged ones and counts; return if all are whole."""
    store = ArtifactStore()
    whole: Counter[str] = Counter()
    n_damaged = 0
    for group, name, check in _list_checks(store):
        try:
            check()
        except (DamagedArtifactError, ValueError) as error:
            n_damaged += 1
            console.print(f"[red]damaged[/red] {name}: ", end="", highlight=False)
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        else:
            whole[group] += 1
    for group, count in sorted(whole.items()):
        console.print(f"{group}: {count} whole", highlight=False)
    n_artifacts = whole.total() - whole[_RECORDS] - whole[_RESULTS]
    console.print(f"{n_artifacts} artifacts verified, {n_damaged} damaged", highlight=False)
    return n_damaged == 0


def _list_checks(store: ArtifactStore) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Yield group, name and check of everything that is kept: artifacts and records where the truth is, results here.

    Whatever else lies among Prefect's results is not ours.
    """
    from tasks.caching import check_result, results_folder

    for kind, sha256 in store.folders():
        yield kind, f"{kind}/{sha256}", lambda kind=kind, sha256=sha256: store.audit(store.find(kind, sha256))
    keys = store.computations.keys()
    for key in keys:
        yield _RECORDS, f"lineage/{key}", partial(store.computations.audit, key)
    for key in keys:
        if (results_folder() / key).is_file():
            yield _RESULTS, f"results/{key}", partial(check_result, store, key)


def print_garbage(console: Console, older_than_days: float, *, is_removed: bool, keep_results: bool) -> None:
    """Print what nobody needs, why, and what it takes, each thing and in all; remove it if asked to.

    Raises:
        StoreError: if less than a day is given as age while a step runs.
    """
    # Asks every step for its version, which the other commands need not wait for.
    from tasks.caching import results_folder
    from tasks.roots import find_roots
    from tasks.storage.garbage import collect, find_garbage

    store, age = ArtifactStore(), timedelta(days=older_than_days)
    roots = find_roots(store, keep_results=keep_results)
    found = (collect if is_removed else find_garbage)(store, roots, older_than=age, results=results_folder())
    sizes: Counter[str] = Counter()
    for garbage in found:
        sizes[garbage.reason] += garbage.n_bytes
        where = f"{store.location}/{garbage.name}" if garbage.objects else garbage.name
        console.print(f"{where}: {garbage.reason}, {decimal(garbage.n_bytes)}", markup=False, highlight=False)
    counts = Counter(garbage.reason for garbage in found)
    for reason, n_bytes in sorted(sizes.items()):
        console.print(f"{reason}: {counts[reason]}, {decimal(n_bytes)}", highlight=False)
    done = "removed" if is_removed else "would be removed (--yes removes them)"
    console.print(
        f"{len(found)} things older than {older_than_days:g} days, {decimal(sizes.total())}, {done}", highlight=False
    )
