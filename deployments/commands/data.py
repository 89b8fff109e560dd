"""What becomes of data and people: batches, corpora beyond memory, release, erasure."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from capo_core.config_file import load_config
from deployments.commands.common import ERR, OUT, ConfigPath, DataDir, Force, Home, NewFolder, Overrides, run_flow, say
from deployments.environment import prepare_environment

app = typer.Typer()
command = partial(app.command, rich_help_panel="Data and people")


@command()
def inbox(config: ConfigPath, overrides: Overrides = None, home: Home = None, data_dir: DataDir = None) -> None:
    """Make the folder into which later files of the corpus are dropped; what is dropped there belongs to CONFIG."""
    experiment = load_config(config, overrides or ())
    prepare_environment(home, data_dir)
    from tasks.inbox import make_inbox

    folder = make_inbox(experiment).folder
    say(f"drop batches of {experiment.corpus.name} into {folder}")


@command()
def suggest(
    config: ConfigPath,
    annotator: Annotated[str, typer.Option(help="Whom the items are for; may be somebody new.")],
    out: Annotated[Path, typer.Option(help="New folder: a table to fill in, and imports for Label Studio.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many items.")] = 50,
    items: Annotated[
        Path | None, typer.Option(help="Table with item_id, text_a, text_b. Default: what the annotator left out.")
    ] = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Rank the items that would teach most about an annotator; what comes back filled in is a batch."""
    experiment, references = run_flow("ingest", config, overrides, home, data_dir)
    from deployments.suggesting import suggest as suggest_items
    from schemas.artifacts import ArtifactRef

    found = suggest_items(experiment, ArtifactRef.parse(references["corpus"]), annotator, n, items, out)
    # Whoever typed a raw id sees it again; in what was written stands the pseudonym.
    say(f"{found.height} items for {annotator}: {out}")


@command()
def bulk(
    config: ConfigPath,
    out: Annotated[Path, typer.Option(help="Folder for the parts; a new one, or one that a broken run left.")],
    annotator: Annotated[
        list[str] | None, typer.Option(help="Whose preference pairs to build. May be repeated.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Parts at once, each with some 500 MB of memory.")] = 2,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Take a corpus beyond memory from Parquet through ingest, splits, features of style and pairs, in parts."""
    loaded = load_config(config, overrides or ())
    prepare_environment(home, data_dir)
    from deployments.bulk import process_in_bulk

    process_in_bulk(OUT, loaded, out, annotator or (), processes)


@command("export-dataset")
def export_dataset(
    config: ConfigPath,
    out: NewFolder,
    force: Force = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Write the annotations and preference pairs as a Hugging Face data set, with a card that states its risk."""
    from deployments.datasets import print_dataset, require_releasable, write_dataset

    target = out.expanduser().absolute()
    require_releasable(load_config(config, overrides or ()), target, force)
    loaded, references = run_flow("release-dataset", config, overrides, home, data_dir)
    print_dataset(OUT, write_dataset(loaded, references, target, force), target)


@command("privacy-check")
def privacy_check(
    config: ConfigPath,
    force: Force = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Say what export-dataset would tell of its annotators: k of their metadata, and how well style gives them away."""
    from deployments.datasets import print_privacy, require_privacy

    loaded, references = run_flow("release-dataset", config, overrides, home, data_dir)
    print_privacy(OUT, loaded, references)
    require_privacy(loaded, references, force)


@command()
def annotators(
    config: ConfigPath,
    file: Annotated[
        list[Path] | None,
        typer.Option(help="Look into this file too, e.g. a batch that was taken in. May be repeated."),
    ] = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Say who is who: pseudonyms beside the ids in the raw files, read again with this machine's key. Only printed."""
    experiment, references = run_flow("ingest", config, overrides, home, data_dir)
    from deployments.people import print_annotators
    from schemas.artifacts import ArtifactRef

    print_annotators(OUT, experiment, ArtifactRef.parse(references["corpus"]), file or ())


@command()
def erase(
    config: ConfigPath,
    annotator: Annotated[str, typer.Option(help="Whom: the pseudonym, or the id in the raw files.")],
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Remove a person from artifacts, adapters, registry, MLflow, reports and the corpus; the next run remakes them."""
    experiment = load_config(config, overrides or ())
    prepare_environment(home, data_dir)
    from deployments.people import erase_annotator

    if not erase_annotator(OUT, experiment, annotator):
        ERR.print("nothing of the person was found; the list of erased people has them all the same", markup=False)
