"""The artifact store, looked into and cleaned."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.commands.common import EXIT_FAILED, OUT, Home
from deployments.environment import prepare_environment

app = typer.Typer(help="Look into the artifact store.", no_args_is_help=True)


@app.command("ls")
def list_artifacts(kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None, home: Home = None) -> None:
    """List the artifacts in the store."""
    prepare_environment(home)
    from deployments.inventory import print_inventory

    print_inventory(OUT, kind)


@app.command("show")
def show_artifact(
    artifact: Annotated[str, typer.Argument(help="A reference, a sha256, or the beginning of one.")], home: Home = None
) -> None:
    """Show an artifact's manifest, first rows, and how it came about."""
    prepare_environment(home)
    from deployments.inventory import print_artifact

    print_artifact(OUT, artifact)


@app.command("verify")
def verify_artifacts(home: Home = None) -> None:
    """Re-hash every artifact; exit with 1 if any is damaged."""
    prepare_environment(home)
    from deployments.inventory import print_verification

    if not print_verification(OUT):
        raise typer.Exit(EXIT_FAILED)


@app.command("gc")
def collect_garbage(
    older_than: Annotated[
        float, typer.Option(min=0, help="Days. What was written or used since then stays in any case.")
    ] = 30,
    is_dry_run: Annotated[bool, typer.Option("--dry-run/--yes", help="Only say what would go, or remove it.")] = True,
    forget_results: Annotated[
        bool,
        typer.Option(
            "--forget-results",
            help="Also what only the cache knows: results that no run in MLflow names any more are computed again.",
        ),
    ] = False,
    home: Home = None,
) -> None:
    """Find what no run, registered version, corpus or cached result needs, and leftovers of killed runs."""
    prepare_environment(home)
    from deployments.inventory import print_garbage

    print_garbage(OUT, older_than, is_removed=not is_dry_run, keep_results=not forget_results)
