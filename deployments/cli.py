"""The command line. Each stage command runs the Prefect flow of the same name, as a deployment would."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from capo_core.config_file import load_config
from capo_core.errors import CapoError, ConfigError
from capo_core.experiment_matrix import load_matrix
from deployments.deploy import PoolType
from deployments.environment import prepare_environment
from schemas.config import ExperimentConfig
from schemas.section import Decision

app = typer.Typer(
    name="capo",
    help="Learns how individual people annotate, and proves or refutes that it did.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
artifacts_app = typer.Typer(help="Look into the artifact store.", no_args_is_help=True)
app.add_typer(artifacts_app, name="artifacts")
models_app = typer.Typer(help="Registered adapters: list them, choose which one answers.", no_args_is_help=True)
app.add_typer(models_app, name="models")

EXIT_FAILED, EXIT_USAGE = 1, 2
# Into a file or a pipe, tables keep a width at which they can be read.
_out = Console(width=None if sys.stdout.isatty() else 140)
_err = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="Experiment configuration, e.g. deployments/configs/varierr/….yaml")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value: dotted.key=value. May be repeated.")
]
Home = Annotated[Path | None, typer.Option("--home", help="capo's folder. Default: $CAPO_HOME or .capo")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where relative corpus paths are looked up. Default: $CAPO_DATA_DIR or ."),
]


def _run_flow(
    name: str, config_path: Path, overrides: list[str] | None, home: Path | None, data_dir: Path | None, **extra: str
) -> tuple[ExperimentConfig, dict[str, str]]:
    """Load the configuration, run one flow and return both it and the references of what came out."""
    config = load_config(config_path, overrides or ())
    prepare_environment(home, data_dir)
    from flows import stages

    flow = getattr(stages, name.replace("-", "_"))
    return config, flow(config, **extra)


def _print_outcome(config: ExperimentConfig, references: dict[str, str]) -> None:
    from deployments.console import print_judges, print_places, print_results, print_stability
    from schemas.artifacts import ArtifactRef

    for key, reference in references.items():
        if "/" not in key:
            _out.print(f"{key}: {reference}", highlight=False, soft_wrap=True)
    if "stability" in references and "evaluation" not in references:
        print_stability(_out, ArtifactRef.parse(references["stability"]))
    if "evaluation" in references:
        print_results(_out, ArtifactRef.parse(references["evaluation"]))
    if "verdicts/all" in references:
        print_judges(_out, ArtifactRef.parse(references["verdicts/all"]))
    print_places(_out, config.name)


def _add_stage(name: str, help_text: str) -> None:
    """Give the command line a command for the flow of the same name."""

    def command(config: ConfigPath, overrides: Overrides = None, home: Home = None, data_dir: DataDir = None) -> None:
        _print_outcome(*_run_flow(name, config, overrides, home, data_dir))

    app.command(name, help=help_text)(command)


_add_stage("run", "Run the whole line: raw file to report.")
_add_stage("analyze", "Agreement between annotators, stability of each one's way of explaining, how both settle.")
_add_stage("pairs", "Demonstrations and preference pairs for every annotator.")
_add_stage("train", "SFT and CAPO adapters.")
_add_stage("generate", "Let every method answer the held-out items.")
_add_stage("evaluate", "Hold the generations against the people.")
_add_stage("judge", "Ask a language model whom each group of explanations reads like.")
_add_stage("export-validation", "Write the blinded rating set for human raters.")
_add_stage("report", "Write the report.")
_add_stage("register", "Put every person's adapter into the model registry.")
_add_stage("retrain", "Train whom new batches changed, evaluate, register.")


@app.command()
def ingest(
    config: ConfigPath,
    batch: Annotated[
        Path | None, typer.Option(help="A later file: new or corrected annotations, withdrawals. Taken in once.")
    ] = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Read raw annotations, quarantine what is wrong, split the items; take in a batch."""
    extra = {} if batch is None else {"batch": str(batch.expanduser().resolve())}
    _print_outcome(*_run_flow("ingest", config, overrides, home, data_dir, **extra))


@app.command()
def inbox(config: ConfigPath, overrides: Overrides = None, home: Home = None, data_dir: DataDir = None) -> None:
    """Make the folder into which later files of the corpus are dropped; what is dropped there belongs to CONFIG."""
    experiment = load_config(config, overrides or ())
    prepare_environment(home, data_dir)
    from tasks.inbox import make_inbox

    folder = make_inbox(experiment).folder
    _out.print(f"drop batches of {experiment.corpus.name} into {folder}", markup=False, highlight=False, soft_wrap=True)


@app.command()
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

    process_in_bulk(_out, loaded, out, annotator or (), processes)


@app.command()
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
    experiment, references = _run_flow("ingest", config, overrides, home, data_dir)
    from deployments.suggesting import suggest as suggest_items
    from schemas.artifacts import ArtifactRef

    found = suggest_items(experiment, ArtifactRef.parse(references["corpus"]), annotator, n, items, out)
    # Whoever typed a raw id sees it again; in what was written stands the pseudonym.
    _out.print(f"{found.height} items for {annotator}: {out}", markup=False, highlight=False, soft_wrap=True)


@app.command("import-validation")
def import_validation(
    config: ConfigPath,
    ratings: Annotated[
        Path, typer.Argument(help="The raters' answers: one file, or a folder of files, of any format.")
    ],
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Read raters' answers back in and report on them."""
    path = str(ratings.expanduser().resolve())
    _print_outcome(*_run_flow("import-validation", config, overrides, home, data_dir, ratings=path))


_OUT = typer.Option("--out", help="Folder to write; a new or an empty one.")
_FORCE = typer.Option("--force", help="Reason to export all the same; it goes into the card.")


@app.command("export-dataset")
def export_dataset(
    config: ConfigPath,
    out: Annotated[Path, _OUT],
    force: Annotated[str | None, _FORCE] = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Write the annotations and preference pairs as a Hugging Face data set, with a card that states its risk."""
    from deployments.datasets import print_dataset, require_releasable, write_dataset

    target = out.expanduser().absolute()
    require_releasable(load_config(config, overrides or ()), target, force)
    loaded, references = _run_flow("release-dataset", config, overrides, home, data_dir)
    print_dataset(_out, write_dataset(loaded, references, target, force), target)


@app.command("privacy-check")
def privacy_check(
    config: ConfigPath,
    force: Annotated[str | None, _FORCE] = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Say what export-dataset would tell of its annotators: k of their metadata, and how well style gives them away."""
    from deployments.datasets import print_privacy, require_privacy

    loaded, references = _run_flow("release-dataset", config, overrides, home, data_dir)
    print_privacy(_out, loaded, references)
    require_privacy(loaded, references, force)


@app.command()
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
    experiment, references = _run_flow("ingest", config, overrides, home, data_dir)
    from deployments.people import print_annotators
    from schemas.artifacts import ArtifactRef

    print_annotators(_out, experiment, ArtifactRef.parse(references["corpus"]), file or ())


@app.command()
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

    if not erase_annotator(_out, experiment, annotator):
        _err.print("nothing of the person was found; the list of erased people has them all the same", markup=False)


@app.command()
def experiment(
    matrix: Annotated[Path, typer.Argument(help="What is compared, e.g. deployments/experiments/….yaml")],
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Run every corpus, layout, pair strategy and seed of a matrix and put the results into one table."""
    compared, configs = load_matrix(matrix, overrides or ())
    prepare_environment(home, data_dir)
    from deployments.console import print_experiment, print_places
    from flows.experiment import experiment as run_experiment
    from schemas.artifacts import ArtifactRef
    from tasks.experiment import locate_results

    references = run_experiment(compared, configs)
    for key, reference in references.items():
        _out.print(f"{key}: {reference}", markup=False, highlight=False, soft_wrap=True)
    print_experiment(_out, ArtifactRef.parse(references["experiment"]))
    for path in locate_results(compared.name):
        _out.print(f"results: {path}", markup=False, highlight=False, soft_wrap=True)
    print_places(_out, compared.name)


_RUN_HELP = "MLflow run id, or the reference or sha256 of an evaluation or report."


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(help=_RUN_HELP)],
    run_b: Annotated[str, typer.Argument(help=_RUN_HELP)],
    home: Home = None,
) -> None:
    """Put two runs of the same corpus on one page, with paired tests over the items that both answered."""
    prepare_environment(home)
    from flows.compare import compare as compare_runs

    _out.print(f"comparison: {compare_runs(run_a, run_b)}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def up(
    home: Home = None,
    data_dir: DataDir = None,
    prefect_port: Annotated[int, typer.Option(help="Of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Of the MLflow server.")] = 5000,
    runs_at_once: Annotated[int, typer.Option(help="Flow runs that the worker runs beside each other.")] = 2,
) -> None:
    """Start Prefect server, MLflow server and a worker on this machine, and deploy every flow."""
    prepare_environment(home, data_dir)
    from deployments.console import print_stack
    from deployments.local_stack.stack import read_states, start_stack
    from tasks.storage.home import capo_home

    endpoints = start_stack(capo_home(), prefect_port=prefect_port, mlflow_port=mlflow_port, runs_at_once=runs_at_once)
    print_stack(_out, endpoints, read_states(capo_home()))


@app.command()
def down(home: Home = None) -> None:
    """Stop what `capo up` started. Runs in progress are stopped too; their next run goes on from the cache."""
    prepare_environment(home)
    from deployments.local_stack.stack import stop_stack
    from tasks.storage.home import capo_home

    _out.print("stopped" if stop_stack(capo_home()) else "nothing was running")


@app.command()
def deploy(
    pool: Annotated[str, typer.Option(help="Work pool; created if there is none of that name.")] = "capo",
    pool_type: Annotated[PoolType, typer.Option(help="What its workers start runs as.")] = "process",
    image: Annotated[str | None, typer.Option(help="Container image with capo installed.")] = None,
    model_tasks_at_once: Annotated[int, typer.Option(help="Tasks that run a model, over all runs.")] = 1,
    home: Home = None,
) -> None:
    """Deploy every flow to the Prefect server in use (PREFECT_API_URL, or that of `capo up`)."""
    prepare_environment(home)
    from deployments.deploy import deploy_flows

    deploy_flows(pool, pool_type, image=image, model_tasks_at_once=model_tasks_at_once)
    _out.print(f"deployed to work pool {pool}", highlight=False)


@app.command()
def params(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print a configuration as the parameters of a deployment: prefect deployment run run/run --params "$(capo …)"."""
    sys.stdout.write(json.dumps({"config": load_config(config, overrides or ()).model_dump(mode="json")}) + "\n")


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="Also check what this experiment needs.")] = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Say what is installed, which devices and servers there are, what is missing and how to get it."""
    experiment = load_config(config, overrides or ()) if config else None
    prepare_environment(home, data_dir)
    from deployments.doctor import examine, print_findings

    findings = examine(experiment)
    print_findings(_out, findings)
    if any(finding.status == "missing" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


_NAME_HELP = "Registered model, as `capo models ls` shows it: <corpus>.<annotator>, or <corpus>.shared"
_REASON = typer.Option(help="Why; kept with the version.")


@models_app.command("ls")
def list_models(name: Annotated[str | None, typer.Argument(help=_NAME_HELP)] = None, home: Home = None) -> None:
    """List the registered adapters and their versions."""
    prepare_environment(home)
    from deployments.models import print_versions, resolve_name

    print_versions(_out, None if name is None else resolve_name(name))


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
    _out.print(f"{name}: version {champion.number} is champion{instead}", markup=False, highlight=False)


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
    _out.print(
        f"{name}: version {champion.number} is champion again, in place of version {before.number}",
        markup=False, highlight=False,
    )  # fmt: skip


@models_app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help=_NAME_HELP)],
    out: Annotated[Path, _OUT],
    version: Annotated[str, typer.Option(help="Alias or number of the version.")] = "champion",
    config: Annotated[
        Path | None, typer.Option(help="Experiment configuration, whose section `release` goes into the card.")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Hugging Face id of the base model.")] = None,
    force: Annotated[str | None, _FORCE] = None,
    home: Home = None,
) -> None:
    """Write an adapter as PEFT and vLLM load it, with a card and the recipe of asking it."""
    experiment = load_config(config) if config else None
    prepare_environment(home)
    from deployments.adapters import export_adapter, print_adapter
    from deployments.models import resolve_name
    from tasks.registry import find_version

    target, found = out.expanduser().absolute(), find_version(resolve_name(name), version)
    print_adapter(_out, export_adapter(found, target, experiment, base_model, force), target)


@app.command()
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
    _err.print(f"{chosen.name}, version {chosen.number}: {answers.height} answers", markup=False, highlight=False)


@app.command()
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
        _err, served, host=host, port=port, api_key=os.environ.get(KEY_VARIABLE), max_waiting=max_waiting,
        timeout_seconds=timeout_seconds,
    )  # fmt: skip


@artifacts_app.command("ls")
def list_artifacts(kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None, home: Home = None) -> None:
    """List the artifacts in the store."""
    prepare_environment(home)
    from deployments.inventory import print_inventory

    print_inventory(_out, kind)


@artifacts_app.command("show")
def show_artifact(
    artifact: Annotated[str, typer.Argument(help="A reference, a sha256, or the beginning of one.")], home: Home = None
) -> None:
    """Show an artifact's manifest, first rows, and how it came about."""
    prepare_environment(home)
    from deployments.inventory import print_artifact

    print_artifact(_out, artifact)


@artifacts_app.command("verify")
def verify_artifacts(home: Home = None) -> None:
    """Re-hash every artifact; exit with 1 if any is damaged."""
    prepare_environment(home)
    from deployments.inventory import print_verification

    if not print_verification(_out):
        raise typer.Exit(EXIT_FAILED)


@artifacts_app.command("gc")
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

    print_garbage(_out, older_than, is_removed=not is_dry_run, keep_results=not forget_results)


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed, 2 bad usage or configuration."""
    try:
        app()
    except ConfigError as error:
        _err.print("[red]configuration error[/red] ", end="")
        _err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
    except CapoError as error:
        _fail(str(error))
    except Exception as error:
        from deployments.lost_servers import explain_lost_server

        said = explain_lost_server(error)
        if said is None:
            raise
        _fail(said)


def _fail(message: str) -> NoReturn:
    _err.print("[red]failed[/red] ", end="")
    _err.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
