"""Registered adapters: which one answers, and asking it."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from capo_core.config_file import load_config
from deployments.commands.common import ERR, OUT, Force, Home, NewFolder
from deployments.environment import prepare_environment
from schemas.section import Decision

app = typer.Typer()
models_app = typer.Typer(help="Registered adapters: list them, choose which one answers.", no_args_is_help=True)
app.add_typer(models_app, name="models", rich_help_panel="Models")
command = partial(app.command, rich_help_panel="Models")

_NAME_HELP = "Registered model, as `capo models ls` shows it: <corpus>.<annotator>, or <corpus>.shared"
_REASON = typer.Option(help="Why; kept with the version.")


@command()
def predict(
    items: Annotated[
        Path | None, typer.Argument(help="Table with item_id, text_a, text_b: CSV, JSON Lines or Parquet.")
    ] = None,
    corpus: Annotated[str, typer.Option(help="Corpus the adapter was trained on (corpus.name).")] = ...,
    annotator: Annotated[str | None, typer.Option(help="In whose place. Default: all, of a shared adapter.")] = None,
    text_a: Annotated[str | None, typer.Option(help="First text of a single item.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Second text of a single item.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write .csv, .jsonl or .parquet. Default: JSON Lines, here.")] = None,
    version: Annotated[str, typer.Option(help="Alias or number of the version.")] = "champion",
    decision: Annotated[Decision, typer.Option(help="How the label is decided.")] = "constrained",
    home: Home = None,
) -> None:
    """Answer items as a person would, with a registered adapter."""
    prepare_environment(home)
    from deployments.models import answer, find_answering, read_asked, write_answers

    asked = read_asked(items, text_a, text_b)
    chosen, annotators = find_answering(corpus, annotator, version)
    answers = answer(chosen, annotators, asked, decision)
    if out is None:
        sys.stdout.write(answers.write_ndjson())
    else:
        write_answers(answers, chosen, out)
    ERR.print(f"{chosen.name}, version {chosen.number}: {answers.height} answers", markup=False, highlight=False)


@command()
def serve(
    corpus: Annotated[list[str], typer.Option(help="Serve the people of this corpus. May be repeated.")],
    version: Annotated[str, typer.Option(help="Alias or number of the versions.")] = "champion",
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine with CAPO_SERVE_API_KEY only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Where to listen; 0 takes a free one.")] = 8000,
    max_waiting: Annotated[int, typer.Option(min=1, help="Questions that may wait; others are told when.")] = 256,
    timeout_seconds: Annotated[float, typer.Option(min=1, help="After which a question is given up.")] = 300,
    print_vllm: Annotated[bool, typer.Option("--print-vllm", help="Print how vLLM serves them, and end.")] = False,
    home: Home = None,
) -> None:
    """Serve registered adapters behind an OpenAI-compatible endpoint; every annotator is a model name."""
    prepare_environment(home)
    from deployments.serve.served_models import find_served

    served = find_served(corpus, version)
    if print_vllm:
        from deployments.serve.vllm import write_vllm_command

        sys.stdout.write(write_vllm_command(served, host=host, port=port) + "\n")
        return
    from deployments.serve.server import KEY_VARIABLE, run_server

    run_server(
        ERR, served, host=host, port=port, api_key=os.environ.get(KEY_VARIABLE), max_waiting=max_waiting,
        timeout_seconds=timeout_seconds,
    )  # fmt: skip


@models_app.command("ls")
def list_models(name: Annotated[str | None, typer.Argument(help=_NAME_HELP)] = None, home: Home = None) -> None:
    """List the registered adapters and their versions."""
    prepare_environment(home)
    from deployments.models import print_versions, resolve_name

    print_versions(OUT, None if name is None else resolve_name(name))


@models_app.command("promote")
def promote_model(
    name: Annotated[str, typer.Argument(help=_NAME_HELP)],
    version: Annotated[str, typer.Argument(help="Number or alias of the version.")],
    reason: Annotated[str, _REASON],
    force: Annotated[bool, typer.Option("--force", help="Also a version that the promotion gate refused.")] = False,
    home: Home = None,
) -> None:
    """Make a version the champion: the one that answers by default."""
    prepare_environment(home)
    from deployments.models import resolve_name
    from tasks.registry import promote

    name = resolve_name(name)
    champion, before = promote(name, version, reason, against_gate=force)
    instead = f", in place of version {before.number}" if before is not None else ""
    OUT.print(f"{name}: version {champion.number} is champion{instead}", markup=False, highlight=False)


@models_app.command("rollback")
def roll_back_model(
    name: Annotated[str, typer.Argument(help=_NAME_HELP)], reason: Annotated[str, _REASON], home: Home = None
) -> None:
    """Make the champion before the present one champion again."""
    prepare_environment(home)
    from deployments.models import resolve_name
    from tasks.registry import roll_back

    name = resolve_name(name)
    champion, before = roll_back(name, reason)
    OUT.print(
        f"{name}: version {champion.number} is champion again, in place of version {before.number}",
        markup=False, highlight=False,
    )  # fmt: skip


@models_app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help=_NAME_HELP)],
    out: NewFolder,
    version: Annotated[str, typer.Option(help="Alias or number of the version.")] = "champion",
    config: Annotated[
        Path | None, typer.Option(help="Experiment configuration, whose section `release` goes into the card.")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Hugging Face id of the base model.")] = None,
    force: Force = None,
    home: Home = None,
) -> None:
    """Write an adapter as PEFT and vLLM load it, with a card and the recipe of asking it."""
    experiment = load_config(config) if config else None
    prepare_environment(home)
    from deployments.adapters import export_adapter, print_adapter
    from deployments.models import resolve_name
    from tasks.registry import find_version

    target, found = out.expanduser().absolute(), find_version(resolve_name(name), version)
    print_adapter(OUT, export_adapter(found, target, experiment, base_model, force), target)
