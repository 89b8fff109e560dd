"""Later batches: a corpus's versions, whom they change, and whose models are made anew."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from prefect.events import Event
from tiny_model import save_tiny_model

from capo_core.config_file import load_config
from capo_core.errors import CorpusError, RegistryError
from flows import stages
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks import corpus_history
from tasks.corpus_history import BATCH_INGESTED, read_history
from tasks.registry import find_version, list_versions, promote
from tasks.storage.artifact_store import ArtifactStore

EXAMPLE = Path(__file__).parent.parent.parent / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
SMALL = [
    "name=batches", "corpus.max_items=15", "model.dtype=float32", "sft.n_epochs=1", "sft.learning_rate=0.01",
    "generation.methods=[history, sft, capo]", "generation.decisions=[sampled, constrained]", "generation.n_history=2",
    "generation.max_new_tokens=8", "evaluation.group_sizes=[1]", "evaluation.n_groups=10",
    "evaluation.n_bootstrap=100", "evaluation.reductions=[none]", "judge.methods=[human]",
    "human_validation.methods=[human]",
]  # fmt: skip
COLUMNS = ("item_id", "text_a", "text_b", "annotator_id", "label", "explanation")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*SMALL, f"model.id={save_tiny_model(tmp_path_factory.mktemp('tiny'), max_position_embeddings=4096).path}"]


def configure(overrides: list[str], corpus: str, *more: str) -> ExperimentConfig:
    return load_config(EXAMPLE, [*overrides, f"corpus.name={corpus}", *more])


def write_batch(path: Path, rows: list[tuple[str, ...]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([COLUMNS, *rows])
    return str(path)


def rows_of(corpus: str, split: str) -> list[dict[str, str]]:
    frame = ArtifactStore().read_table(ArtifactRef.parse(corpus)).filter(split=split, annotator_id="ben")
    return frame.sort("item_id").select("source_id", "text_a", "text_b").to_dicts()


def correct(rows: list[dict[str, str]], annotator: str, explanation: str) -> list[tuple[str, ...]]:
    return [(r["source_id"], r["text_a"], r["text_b"], annotator, "neutral", explanation) for r in rows]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What is emitted, beside being emitted."""
    seen: list[dict[str, object]] = []
    emit = corpus_history.emit_event

    def record(event: str, **about: object) -> Event | None:
        seen.append({"event": event, **about})
        return emit(event, **about)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(corpus_history, "emit_event", record)
    return seen


def test_a_batch_retrains_whom_it_changed_and_nobody_else(
    overrides: list[str], prefect_server: None, tmp_path: Path, events: list[dict[str, object]]
) -> None:
    config = configure(overrides, "one-changed")
    before = stages.retrain(config)
    for name in ("one-changed.ben", "one-changed.ada"):
        first = find_version(name, "1")
        assert ("champion" in first.aliases) == (first.tags["capo.gate"] == "promoted")
        assert "the first version: " in first.tags["capo.gate_reasons"]
        promote(name, "1", "a beginning", against_gate=True)
    train = rows_of(before["corpus"], "train")
    rows = [*correct(train[:3], "ben", "I read it again, and no."), *correct(train[:4], "eve", "Says eve.")]
    path = write_batch(tmp_path / "monday.csv", rows)

    taken = stages.ingest(config, path)
    assert [(event["event"], event["payload"]["changed"]) for event in events] == [(BATCH_INGESTED, ["ben", "eve"])]
    assert ExperimentConfig.model_validate(events[0]["payload"]["config"]) == config
    again = stages.ingest(config, path)
    assert len(events) == 1
    assert again["corpus"] == taken["corpus"]
    assert [batch.file for batch in read_history("one-changed").batches] == ["monday.csv"]

    after = stages.retrain(config)
    made = {name for name in after if name.startswith(("adapters/", "generations/"))}
    changed = {name for name in made if after[name] != before.get(name)}
    assert changed == {
        "adapters/sft/ben/13", "adapters/capo/ben/13", "generations/sft/ben/13", "generations/capo/ben/13",
        "generations/history/ben/13", "generations/history/eve/13",
    }  # fmt: skip
    # eve has 4 training annotations, an adapter asks for 8
    metrics = ArtifactStore().read_table(ArtifactRef.parse(after["evaluation"])).drop_nulls("value")
    answered = metrics.filter(method="capo", metric="empty_rate")["annotator_id"]
    assert "ben" in answered
    assert "eve" not in answered

    assert [version.number for version in list_versions("one-changed.ada")] == ["1"]
    champion, challenger = list_versions("one-changed.ben")
    decision = ArtifactStore().read_table(ArtifactRef.parse(after["promotion/ben"]))
    assert "against the champion " in decision["reason"][0]
    assert decision["n"][0] == 3  # held-out items
    assert challenger.tags["capo.gate_decision"] == after["promotion/ben"]
    assert ("champion" in challenger.aliases) == bool(decision["holds"].all())
    assert ("champion" in champion.aliases) != ("champion" in challenger.aliases)
    with pytest.raises(RegistryError, match=r"refused version 2: .*add --force"):
        promote("one-changed.ben", "2", "I like it")

    assert stages.ingest(configure(overrides, "one-changed", "corpus.version=1"))["corpus"] == before["corpus"]
    with pytest.raises(CorpusError, match=r"version 3 is asked for, the newest is 2; correct corpus\.version"):
        stages.ingest(configure(overrides, "one-changed", "corpus.version=3"))
    with pytest.raises(CorpusError, match="taken in by the newest version only"):
        stages.ingest(configure(overrides, "one-changed", "corpus.version=1"), path)


def test_training_goes_on_from_the_version_before_where_so_configured(
    overrides: list[str], prefect_server: None, tmp_path: Path
) -> None:
    config = configure(overrides, "warm", "batches.start=previous", "generation.methods=[sft]")
    before = stages.train(config)
    train = rows_of(before["corpus"], "train")
    stages.ingest(config, write_batch(tmp_path / "b.csv", correct(train[:3], "ben", "Not so.")))
    after = stages.train(config)
    afresh = stages.train(configure(overrides, "warm", "generation.methods=[sft]"))
    assert after["adapters/sft/ada/13"] == before["adapters/sft/ada/13"] == afresh["adapters/sft/ada/13"]
    assert len({run["adapters/sft/ben/13"] for run in (before, after, afresh)}) == 3
    store = ArtifactStore()
    made = [record for record in store.lineage() if after["adapters/sft/ben/13"] in record["writes"]]
    assert before["adapters/sft/ben/13"] in made[0]["reads"]


def test_a_batch_that_cannot_be_taken_in_leaves_the_corpus_as_it_was(
    overrides: list[str], prefect_server: None, tmp_path: Path, events: list[dict[str, object]]
) -> None:
    config = configure(overrides, "spoiled")
    before = stages.ingest(config)
    path = tmp_path / "bad.csv"
    path.write_text("annotator_id,withdrawn\nada,yes\nben,yes\nchi,yes\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="annotations of 1 annotator"):
        stages.ingest(config, str(path))
    assert read_history("spoiled").batches == ()
    assert events == []
    assert stages.ingest(config) == before
