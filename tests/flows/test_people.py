"""Annotators as people, over the whole line: their ids are nowhere, and what they refuse is not done."""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from canaries import CANARIES, N_PROLIFIC, row, search, write_raw_file, write_rows
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, get_current_settings, temporary_settings
from rich.console import Console
from tiny_model import save_tiny_model

from capo_core.config_file import load_config
from capo_core.pseudonyms import is_pseudonym, name_pseudonym
from deployments.adapters import export_adapter
from deployments.datasets import write_dataset
from deployments.inventory import print_garbage
from deployments.models import answer, find_answering, read_asked, resolve_name, write_answers
from deployments.people import erase_annotator
from deployments.suggesting import suggest
from flows import stages
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks.registry import list_versions, promote
from tasks.sources import annotator_secret
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home

EXAMPLE = Path(__file__).parent.parent.parent / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
SMALL = [
    "name=aviary", "corpus.name=aviary", "corpus.annotator_ids=pseudonymise", "model.dtype=float32", "sft.n_epochs=1",
    "adapter.layout=shared", "batches.min_annotations=5", "capo.n_epochs=1", "judge.n_references=3",
    "generation.methods=[sft, capo]",
    "generation.max_new_tokens=8", "generation.decisions=[sampled, constrained]", "stability.group_sizes=[1]",
    "stability.n_repeats=1", "stability.n_bootstrap=100", "stability.n_permutations=100", "stability.n_folds=2",
    "stability.reductions=[none]", "stability.classifiers=[ngrams]", "stability.normalisations=[none]",
    "convergence.n_sizes=3", "convergence.n_repeats=3", "convergence.group_size=1", "evaluation.group_sizes=[1]",
    "evaluation.n_groups=10", "evaluation.n_bootstrap=100", "evaluation.reductions=[none]",
    "evaluation.classifiers=[ngrams]", "judge.methods=[human]", "judge.n_groups=1", "judge.group_size=1",
    "human_validation.methods=[human, capo]", "human_validation.n_tasks=8",
    "human_validation.n_references=3", "human_validation.group_size=1",
]  # fmt: skip

OTHERWISE = "I see it otherwise now than before"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a capo home of this module's own; raw files and what is exported lie beside it."""
    folder = tmp_path_factory.mktemp("house")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPO_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def config(house: Path) -> ExperimentConfig:
    model = save_tiny_model(house / "tiny", max_position_embeddings=16384)
    raw = write_raw_file(house / "raw" / "aviary.csv")
    return load_config(EXAMPLE, [*SMALL, f"model.id={model.path}", f"corpus.paths=[{raw}]"])


@pytest.fixture(scope="module")
def references(config: ExperimentConfig, prefect_server: None, house: Path) -> dict[str, str]:
    """Run the line, its logs kept by Prefect as on a server; take a batch in; predict, suggest, export."""
    told = house / "told.log"
    handler = logging.FileHandler(told)
    logging.getLogger().addHandler(handler)
    logging.getLogger("prefect").addHandler(handler)
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}):
        found = stages.run(config)
        batch = [row(0, 1) | {"explanation": OTHERWISE}, row(49, 0), {"annotator_id": CANARIES[40]}]
        batch[2]["withdrawn"] = "yes"
        stages.ingest(config, str(write_rows(house / "raw" / "monday.csv", batch)))
        released = stages.release_dataset(config)
        APILogHandler().flush()
    logging.getLogger().removeHandler(handler)
    logging.getLogger("prefect").removeHandler(handler)
    out = house / "out"
    write_dataset(config, released, out / "dataset", "a test")
    suggest(config, ArtifactRef.parse(released["source_corpus"]), CANARIES[49], 3, None, out / "suggested")
    asked = read_asked(None, "The bread was sold.", "Somebody bought bread.")
    version, people = find_answering("aviary", CANARIES[0], "1")
    write_answers(answer(version, people, asked, "constrained"), version, out / "answers.csv")
    export_adapter(version, out / "adapter", config, "us/tiny", "a test")
    return found


def _database() -> Path:
    """Return Prefect's database."""
    url = get_current_settings().server.database.connection_url
    assert url is not None
    return Path(url.get_secret_value().partition(":///")[2])


def _places(house: Path) -> list[Path]:
    """Return where capo, MLflow and Prefect keep things."""
    database = _database()
    assert database.is_file()
    return [house / "home", Path(os.environ["PREFECT_HOME"]), *database.parent.glob(f"{database.name}*")]


def test_no_id_is_kept_anywhere(references: dict[str, str], house: Path) -> None:
    places = [*_places(house), house / "out", house / "told.log"]
    assert search([house / "raw"], CANARIES)  # the search finds what is there
    assert search(places, CANARIES) == {}
    # What was searched holds the people, under their pseudonyms, wherever ids could have been.
    pseudonym = name_pseudonym(CANARIES[0], "aviary", annotator_secret())
    holding = "\n".join(search(places, [pseudonym]))
    for where in ("/annotations/", "/corpus/", "/demonstrations/", "/preferences/", "/generations/", "mlflow.db",
                  "told.log", "reports/aviary.html", "answers.csv", _database().name):  # fmt: skip
        assert where in holding, where


def test_quarantine_names_pseudonyms_and_withholds_lines_that_are_nobodys(references: dict[str, str]) -> None:
    quarantine = ArtifactStore().read_table(ArtifactRef.parse(references["annotations"]), "quarantine.parquet")
    assert quarantine["reason"].sort().to_list() == [
        "duplicate_annotation", "empty_explanation", "malformed_row", "malformed_row", "missing_text", "unknown_label",
        "unknown_label",
    ]  # fmt: skip
    known, unknown = (quarantine.filter(quarantine["annotator_id"].is_null() == flag) for flag in (False, True))
    assert all(is_pseudonym(name) for name in known["annotator_id"])
    assert all('"withheld"' in record for record in unknown["record"])
    counts = ArtifactStore().metadata(ArtifactRef.parse(references["annotations"]))["counts"]
    assert counts["rows_in"] == counts["rows_accepted"] + counts["rows_quarantined"] == 2 * 12 + 48 * 2 + 7
    assert counts["explanations_naming_an_annotator"] == 1


def test_everybody_has_one_pseudonym_of_the_corpus_and_the_key(references: dict[str, str]) -> None:
    annotators = ArtifactStore().metadata(ArtifactRef.parse(references["corpus"]))["annotators"]
    key = annotator_secret()
    assert annotators == sorted(name_pseudonym(name, "aviary", key) for name in CANARIES)
    path = capo_home() / "keys" / "annotators.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    prolific = sorted(name_pseudonym(name, "aviary", key) for name in CANARIES[:N_PROLIFIC])
    assert [name.partition("/")[2] for name in references if name.startswith("demonstrations/")] == prolific


def test_who_has_the_key_may_use_the_ids_of_the_raw_files(references: dict[str, str], house: Path) -> None:
    _, people = find_answering("aviary", CANARIES[1], "1")
    assert people == [name_pseudonym(CANARIES[1], "aviary", annotator_secret())]
    assert find_answering("aviary", people[0], "1")[1] == people
    assert resolve_name("aviary.shared") == "aviary.shared"
    table = (house / "out" / "suggested" / "to_annotate.csv").read_text(encoding="utf-8")
    # What was written for somebody comes back as a batch under the same name.
    assert name_pseudonym(CANARIES[49], "aviary", annotator_secret()) in table


def test_an_erased_person_is_nowhere_and_stays_out(
    references: dict[str, str], config: ExperimentConfig, house: Path
) -> None:
    """Runs last: it takes apart what the others look at."""
    promote("aviary.shared", "1", "a test", against_gate=True)
    pseudonym, words = name_pseudonym(CANARIES[0], "aviary", annotator_secret()), ["plumage00q", OTHERWISE]
    before = search([house / "home"], words)
    assert any("/mlflow/" in path for path in before)
    assert any("/validation/" in path for path in before)

    told = io.StringIO()
    assert erase_annotator(Console(file=told, width=200), config, CANARIES[0])
    print_garbage(Console(file=told, width=200), 30, is_removed=True, keep_results=True)

    places = _places(house)
    assert search(places, words) == {}
    holding = search([house / "home"], [pseudonym, CANARIES[0]])
    allowed = (house / "home" / "erasures", house / "home" / "reports" / f"erased-aviary-{pseudonym}.txt")
    assert not [path for path in holding if not path.startswith(tuple(map(str, allowed)))]
    assert list_versions() == []
    for sentence in (
        "deleted aviary.shared, version 1, which was challenger and champion",
        "to be remade: train-capo shared seed 13",
        "aviary.csv still holds the person",
    ):
        assert sentence in told.getvalue()
    assert (house / "home" / "reports" / f"erased-aviary-{pseudonym}.txt").read_text().count("\n") > 20

    after = stages.pairs(config)
    known = ArtifactStore().metadata(ArtifactRef.parse(after["corpus"]))["annotators"]
    assert pseudonym not in known
    assert len(known) == 48  # two of fifty are gone: one was erased, one withdrew
    counts = ArtifactStore().metadata(ArtifactRef.parse(after["annotations"]))["counts"]
    assert counts["rows_erased"] == 12 + 1 + 1  # said, said twice, and once in the batch
    assert search(_places(house), words) == {}
    # Told again, there is nothing left but the list.
    assert not search([house / "home" / "artifacts"], [pseudonym])
