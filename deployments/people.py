"""What the command line does about annotators as people: who is who, and erasing somebody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from capo_core.consent import NEEDED, find_objections, read_consent
from capo_core.corpora import find_annotators
from capo_core.corpora.identities import Naming
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks.erasing_servers import erase_from_mlflow, erase_from_prefect
from tasks.erasure import erase_artifacts, finish_erasure, plan_erasure
from tasks.inbox import TAKEN, inbox_root
from tasks.people import read_erasures
from tasks.sources import annotator_secret, find_source
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import artifacts_url


def list_raw_files(config: ExperimentConfig, further: Sequence[Path] = ()) -> list[Path]:
    """Return the files that a corpus was read from, as far as they are known: configured, taken from its inbox, named.

    Raises:
        InputFileError: if a configured file is not there.
    """
    configured = [Path(find_source(path).path) for path in config.corpus.paths]
    taken = inbox_root() / config.corpus.name / TAKEN
    return [
        *configured,
        *(sorted(path for path in taken.iterdir() if path.is_file()) if taken.is_dir() else []),
        *further,
    ]


def find_raw_ids(config: ExperimentConfig, paths: Sequence[Path]) -> dict[str, dict[str, set[str]]]:
    """Return which raw ids stand behind each pseudonym, and in which files; by this machine's key, stored nowhere.

    Raises:
        InputFileError: if a file cannot be read.
    """
    naming = Naming(config.corpus.name, annotator_secret())
    found: dict[str, dict[str, set[str]]] = {}
    for path in paths:
        for raw in find_annotators([path], config.corpus.format):
            found.setdefault(naming.pseudonym(raw), {}).setdefault(raw, set()).add(path.name)
    return found


def print_annotators(
    console: Console, config: ExperimentConfig, corpus: ArtifactRef, further: Sequence[Path] = ()
) -> None:
    """Print who is who: for every annotator the name in what is stored, the id in the raw files, consent and number.

    Args:
        console: prints; nothing is stored.
        config: the experiment.
        corpus: its newest version.
        further: files to look into beside those that are known, e.g. batches that came by another way.
    """
    frame = ArtifactStore().read_table(corpus)
    n_annotations = dict(frame.group_by("annotator_id").len().iter_rows())
    consent = read_consent(frame)
    keeps = config.corpus.annotator_ids == "keep"
    raw_ids = find_raw_ids(config, list_raw_files(config, further))
    erased = {entry.pseudonym for entry in read_erasures(config.corpus.name)}
    names = {raw: raw for behind in raw_ids.values() for raw in behind} if keeps else {one: one for one in raw_ids}
    table = Table()
    for title in ("Annotator", "Id in the files", "Annotations", "Consent", "Left out of"):
        table.add_column(title, justify="right" if title == "Annotations" else "left", overflow="fold")
    for name in sorted({*n_annotations, *names}):
        behind = (name,) if keeps else sorted(raw_ids.get(name, {}))
        scopes = consent.get(name)
        uses = [use for use in NEEDED if find_objections(
            {name: scopes}, use, require_consent=config.corpus.require_consent)]  # fmt: skip
        is_erased = any(pseudonym in erased for pseudonym, raw in raw_ids.items() if name in (pseudonym, *raw))
        table.add_row(
            name,
            ", ".join(behind) or "not in the files read",
            str(n_annotations.get(name, 0)),
            "not stated" if scopes is None else ", ".join(sorted(scopes)) or "none",
            "everything: erased" if is_erased else ", ".join(uses),
        )
    console.print(table)


def erase_annotator(console: Console, config: ExperimentConfig, said: str) -> bool:
    """Erase a person from all that capo keeps of a corpus, print what went and what is to be remade.

    Args:
        console: prints; what was said is stored nowhere.
        config: the experiment; its corpus.
        said: the person's pseudonym, or id in the raw files.

    Returns:
        Whether there was anything of the person.
    """
    plan = plan_erasure(config.corpus, said)
    runs = erase_from_mlflow(plan.refs)
    erase_from_prefect(runs.flow_run_ids)
    copies = erase_artifacts(plan)
    report = finish_erasure(plan)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"{config.corpus.name}: {plan.pseudonym} is on the list of erased people; rows of theirs are not read again")
    for version in runs.versions:
        crowned = f", which was {' and '.join(version.aliases)}" if version.aliases else ""
        say(f"deleted {version.name}, version {version.number}{crowned}")
    for path in copies:
        say(f"removed {path}")
    say(f"removed {len(plan.refs)} artifacts and {runs.n_runs} runs in MLflow")
    for step in sorted(plan.remade):
        say(f"to be remade: {step}")
    say(f"the list: {report}")
    if runs.left_to_gc:
        say(
            "the MLflow server has these marked as deleted; whoever runs it has to run mlflow gc for them: "
            + ", ".join(runs.left_to_gc)
        )
    for path in _find_files_with(config, plan.pseudonym):
        say(f"{path} still holds the person; it is yours: take the rows out, or delete it")
    if artifacts_url() is not None:
        say("run this command on every machine that shares the artifacts: each has copies of its own")
    say("not reached: files that were written elsewhere (exports, predictions, suggestions), backups, other machines")
    return bool(plan.refs)


def _find_files_with(config: ExperimentConfig, pseudonym: str) -> list[Path]:
    """Return the raw files in which a person stands."""
    found = []
    for path in list_raw_files(config):
        if pseudonym in find_raw_ids(config, [path]):
            found.append(path)
    return found
