"""Adapters in the model registry: what a version carries, who answers, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from tiny_model import save_tiny_model

from capo_core.config_file import load_config
from capo_core.errors import DamagedArtifactError, InputFileError, RegistryError
from deployments.models import answer, find_answering, read_asked, write_answers
from flows import stages
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks import tracking
from tasks.registry import fetch_version, find_version, list_versions, promote, roll_back
from tasks.storage.artifact_store import ArtifactStore

EXAMPLE = Path(__file__).parent.parent.parent / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
SMALL = [
    "name=registry", "corpus.name=registered", "corpus.max_items=15", "model.dtype=float32", "sft.n_epochs=1",
    "generation.methods=[sft, capo]", "generation.decisions=[sampled, constrained]", "generation.max_new_tokens=8",
    "evaluation.group_sizes=[1]", "evaluation.n_groups=10", "evaluation.n_bootstrap=100",
    "evaluation.reductions=[none]", "judge.methods=[human]", "human_validation.methods=[human]",
]  # fmt: skip
PEOPLE = ("ada", "ben", "chi", "dov")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*SMALL, f"model.id={save_tiny_model(tmp_path_factory.mktemp('tiny'), max_position_embeddings=4096).path}"]


@pytest.fixture(scope="module")
def config(overrides: list[str]) -> ExperimentConfig:
    return load_config(EXAMPLE, overrides)


@pytest.fixture(scope="module")
def first(config: ExperimentConfig, prefect_server: None) -> dict[str, str]:
    return stages.register(config)


@pytest.fixture(scope="module")
def second(first: dict[str, str], overrides: list[str]) -> dict[str, str]:
    return stages.register(load_config(EXAMPLE, [*overrides, "capo.beta=0.5"]))


def _items(reference: str) -> pl.DataFrame:
    held_out = ArtifactStore().read_table(ArtifactRef.parse(reference)).filter(split="test")
    return held_out.unique("item_id").sort("item_id").select("item_id", "text_a", "text_b")


def test_a_version_carries_its_adapter_its_card_its_origin_and_its_figures(
    first: dict[str, str], config: ExperimentConfig
) -> None:
    version = find_version("registered.ben", "1")
    assert str(version.adapter) == first["adapters/capo/ben/13"]
    assert version.tags["capo.evaluation"] == first["evaluation"]
    assert version.tags["capo.corpus"] == first["corpus"]
    recipe = fetch_version(version)
    assert (recipe.target, recipe.annotators, recipe.task) == ("ben", ("ben",), config.task)
    client = tracking.tracking_client()
    card = client.get_model_version("registered.ben", "1").description
    assert card is not None
    assert card.startswith("# CAPO adapter")
    assert "withdraws consent" in card
    figures = {metric.key: metric.value for metric in client.get_logged_model(version.model_id).metrics}
    table = ArtifactStore().read_table(ArtifactRef.parse(first["evaluation"]))
    agreement = table.filter(method="capo", annotator_id="ben", metric="label_agreement", decision="constrained")
    assert figures["capo/label_agreement/constrained"] == pytest.approx(agreement["value"].item())


def test_registering_again_makes_no_version_and_another_adapter_is_the_challenger(
    first: dict[str, str], second: dict[str, str], config: ExperimentConfig
) -> None:
    assert stages.register(config) == first
    versions = list_versions("registered.ada")
    assert [str(v.adapter) for v in versions] == [run["adapters/capo/ada/13"] for run in (first, second)]
    assert find_version("registered.ada", "challenger").number == "2"
    assert {version.name for version in list_versions()} >= {f"registered.{who}" for who in PEOPLE}


def test_promotion_and_rollback_move_the_champion_and_keep_the_reasons(second: dict[str, str]) -> None:
    name = "registered.chi"
    with pytest.raises(
        RegistryError, match=r"no version 'champion'; there are 1, 2.*capo models promote registered.chi"
    ):
        find_version(name)
    with pytest.raises(RegistryError, match="needs a reason"):
        promote(name, "1", "  ")
    # On three held-out items the gate moves nobody; a person may.
    with pytest.raises(RegistryError, match=r"the gate refused version 1: imitation: .*add --force"):
        promote(name, "1", "the first")
    _, before = promote(name, "1", "the first", against_gate=True)
    assert before is None
    with pytest.raises(RegistryError, match="first champion"):
        roll_back(name, "no reason")
    champion, before = promote(name, "2", "closer by a paired test", against_gate=True)
    assert (champion.number, before.number if before else None) == ("2", "1")
    restored, replaced = roll_back(name, "complaints")
    assert (restored.number, replaced.number) == ("1", "2")
    assert restored.aliases == ("champion",)
    assert "rollback of version 2: complaints" in restored.tags["capo.promoted_because"]
    assert "closer by a paired test" in find_version(name, "2").tags["capo.promoted_because"]
    with pytest.raises(RegistryError, match="first champion"):
        roll_back(name, "again")


def test_predictions_are_those_of_the_evaluated_run(first: dict[str, str], second: dict[str, str]) -> None:
    version, annotators = find_answering("registered", "dov", "1")
    answers = answer(version, annotators, _items(first["corpus"]), "constrained")
    evaluated = ArtifactStore().read_table(ArtifactRef.parse(first["generations/capo/dov/13"]))
    wanted = evaluated.filter(decision="constrained").select(answers.columns)
    assert answers.sort("item_id").equals(wanted.sort("item_id"))


def test_a_shared_adapter_answers_for_each_and_for_all(overrides: list[str], prefect_server: None) -> None:
    shared = load_config(EXAMPLE, [*overrides, "adapter.layout=shared", "corpus.name=together"])
    references = stages.register(shared)
    items = _items(references["corpus"])
    version, nobody = find_answering("together", None, "challenger")
    assert (version.name, nobody) == ("together.shared", [])
    of_all = answer(version, nobody, items, "sampled")
    assert sorted(of_all["annotator_id"].unique()) == list(PEOPLE)
    version, annotators = find_answering("together", "ada", "challenger")
    of_one = answer(version, annotators, items, "sampled")
    assert of_one.equals(of_all.filter(annotator_id="ada"))
    with pytest.raises(RegistryError, match="eve: the adapter answers for ada, ben, chi, dov only"):
        answer(version, ["eve"], items, "sampled")
    with pytest.raises(RegistryError, match=r"registered\.eve: no such registered model; there are .*registered\.ada"):
        find_answering("registered", "eve", "champion")


def test_a_version_is_fetched_from_mlflow_alone_and_a_changed_one_is_refused(first: dict[str, str]) -> None:
    version = find_version("registered.ada", "1")
    store = ArtifactStore()
    shutil.rmtree(store.path(version.adapter))
    fetch_version(version)
    store.verify(version.adapter)
    client = tracking.tracking_client()
    location = client.get_logged_model(version.model_id).artifact_location.removeprefix("file://")
    weights = Path(location) / "adapter" / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    fetch_version(version)  # the store's own copy is whole
    shutil.rmtree(store.path(version.adapter))
    with pytest.raises(DamagedArtifactError, match=r"adapter_model\.safetensors does not match"):
        fetch_version(version)
    assert not list(store.path(version.adapter).parent.glob(".tmp-*"))
    weights.write_bytes(content)
    recipe = Path(location) / "recipe.json"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(version.adapter.sha256, "0" * 64), encoding="utf-8")
    with pytest.raises(RegistryError, match="its recipe is of"):
        fetch_version(version)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("item_id,text_a\n1,a\n", r"missing column\(s\) text_b"),
        ("item_id,text_a,text_b\n1,a,b\n1,c,d\n", "line 3: item_id '1' stands on line 2 already"),
        ("item_id,text_a,text_b\n1,a,b\n2,,d\n", "line 3: text_a is empty"),
        ("item_id,text_a,text_b\n1,a\n", "line 2: the row has 2 fields, the header 3"),
        ("item_id,text_a,text_b\n", "there are no rows"),
    ],
)
def test_items_that_cannot_be_asked_are_named(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputFileError, match=says):
        read_asked(path, None, None)
    with pytest.raises(InputFileError, match="either a table"):
        read_asked(path, "a", "b")
    with pytest.raises(InputFileError, match="belong together"):
        read_asked(None, "a", None)


def test_answers_are_written_with_the_version_they_are_of(first: dict[str, str], tmp_path: Path) -> None:
    version = find_version("registered.ada", "1")
    answers = pl.DataFrame({"item_id": ["1"], "explanation": ["=1+1"]})
    for name in ("answers.csv", "answers.jsonl", "answers.parquet"):
        write_answers(answers, version, tmp_path / name)
    assert pl.read_csv(tmp_path / "answers.csv")["explanation"].item() == "'=1+1"
    for back in (pl.read_ndjson(tmp_path / "answers.jsonl"), pl.read_parquet(tmp_path / "answers.parquet")):
        assert back["explanation"].item() == "=1+1"
        assert (back["model"].item(), back["version"].cast(pl.String).item()) == ("registered.ada", "1")
    with pytest.raises(InputFileError, match=r"none of \.csv, \.jsonl, \.parquet"):
        write_answers(answers, version, tmp_path / "answers.xlsx")
