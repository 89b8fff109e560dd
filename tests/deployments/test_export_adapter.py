"""A registered adapter as others get it: PEFT loads it, its card says what it is, nothing leads to this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from adapter_material import adapter_config, trained_adapter
from huggingface_hub import ModelCard
from peft import PeftConfig, PeftModel
from release_material import release_config
from tiny_model import FLOAT32, TASK, one_thread, save_tiny_model
from transformers import AutoModelForCausalLM

from capo_core.errors import RegistryError, ReleaseError
from capo_core.models import load_policy
from capo_core.training.adapters import describe_adapter, save_adapter
from deployments.adapters import export_adapter
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import GenerationConfig
from schemas.frames import (
    COMPARISONS,
    CORPUS,
    CROSS_ATTRIBUTION,
    EXCLUSIONS,
    METRICS,
    RETENTION,
    STYLE_DISTANCES,
    TRAINING_LOG,
    empty,
)
from schemas.registry import AnsweringRecipe
from schemas.training import AdapterConfig, CAPOConfig, ModelConfig
from tasks import tracking
from tasks.registry import Version, find_version, register_adapter
from tasks.storage.artifact_store import ArtifactStore

__all__ = ["one_thread"]

IDS = torch.arange(2, 42).reshape(2, 20)
PUBLIC = "us/tiny"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The tiny model as a folder of this machine."""
    folder = tmp_path_factory.mktemp("private") / "tiny"
    saved = save_tiny_model(folder)
    return saved.model_copy(update={"id": str(folder), "fingerprint": "f" * 64})


def _metric(metric: str, value: float, **other: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(METRICS) | {
        "method": "capo", "annotator_id": "ada", "metric": metric, "value": value, "ci_low": value - 0.1,
        "ci_high": value + 0.1, "n": 40, "n_seeds": 1,
    }  # fmt: skip
    return row | other


def _store_evaluation() -> ArtifactRef:
    attributed = {"decision": "sampled", "condition": "raw", "classifier": "ngrams", "group_size": 5}
    rows = [
        _metric("label_agreement", 0.64, decision="constrained"),
        _metric("label_agreement", 0.45, method="majority"),
        _metric("attribution_accuracy", 0.71, **attributed),
        _metric("attribution_accuracy", 0.2, **(attributed | {"annotator_id": "ben"})),
        _metric("attribution_accuracy", 0.98, **(attributed | {"method": "human", "decision": None})),
        _metric(
            "attribution_accuracy",
            0.24,
            **(attributed | {"method": "human", "decision": None, "condition": "shuffled"}),
        ),
    ]
    return ArtifactStore().write(
        "evaluation",
        {
            "data.parquet": pl.DataFrame(rows, schema=METRICS),
            "comparisons.parquet": empty(COMPARISONS),
            "style_distances.parquet": empty(STYLE_DISTANCES),
            "cross_attribution.parquet": empty(CROSS_ATTRIBUTION),
            "exclusions.parquet": empty(EXCLUSIONS),
        },
    )


def _store_retention() -> ArtifactRef:
    row = {
        "method": "capo", "target": "ada", "seed": 13, "metric": "neutral_perplexity", "base": 20.0, "tuned": 22.0,
        "change": 1.1, "ci_low": 1.05, "ci_high": 1.2, "n": 16,
    }  # fmt: skip
    return ArtifactStore().write("retention", {"data.parquet": pl.DataFrame([row], schema=RETENTION)})


def _register(tiny: ModelRef, adapter: AdapterConfig, corpus: str, people: list[str], folder: Path) -> Version:
    """Return the version of an adapter with weights as after training."""
    store, shared = ArtifactStore(), len(people) > 1
    card = describe_adapter("capo", tiny, adapter, CAPOConfig(), people, 13)
    save_adapter(trained_adapter(tiny, adapter), folder, tiny.id, card)
    stored = store.write(
        "adapter", {"training_log.parquet": empty(TRAINING_LOG)},
        fill=lambda target: shutil.copytree(folder, target, dirs_exist_ok=True), metadata={"corpus": corpus},
    )  # fmt: skip
    recipe = AnsweringRecipe(
        corpus=corpus,
        target="shared" if shared else people[0],
        annotators=tuple(people),
        method="capo",
        seed=13,
        task=TASK,
        model=ModelConfig(id=tiny.id, dtype="float32", device="cpu"),
        fingerprint=tiny.fingerprint,
        tag="last" if shared else None,
        generation=GenerationConfig(methods=("capo",)),
        adapter=stored,
        corpus_version=store.write("corpus", {"data.parquet": empty(CORPUS)}),
        evaluation=_store_evaluation(),
        retention=_store_retention(),
    )
    run_id = tracking.start_flow_run("release", "release", f"release-{corpus}", {})
    return register_adapter.fn(recipe, run_id, {})


@pytest.fixture(scope="module")
def version(tiny: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Version:
    return _register(tiny, adapter_config("lora"), "personas", ["ada"], tmp_path_factory.mktemp("a") / "adapter")


@pytest.fixture(scope="module")
def published(version: Version, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "adapter"
    export_adapter(version, out, release_config(), PUBLIC, None)
    return out


def test_peft_loads_it_and_computes_what_capo_does(published: Path, version: Version, tiny: ModelRef) -> None:
    assert sorted(path.name for path in published.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "recipe.json",
    ]  # fmt: skip
    assert PeftConfig.from_pretrained(str(published)).base_model_name_or_path == PUBLIC
    base = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    with torch.no_grad():
        untuned = base(IDS).logits
        theirs = PeftModel.from_pretrained(base, str(published)).eval()(IDS).logits
        ours = load_policy(tiny, FLOAT32, ArtifactStore().path(version.adapter))(IDS).logits
    # Merged in float32 the same sums are made in another order, nothing more.
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert (theirs - untuned).abs().max() > 0.01


def test_nothing_in_it_names_the_person_or_this_machine(published: Path, tiny: ModelRef) -> None:
    for path in published.iterdir():
        content = path.read_bytes()
        for trace in (b'"ada"', b"`ada`", b" ada ", str(Path(tiny.path).parent).encode()):
            assert trace not in content, (path.name, trace)


def test_its_recipe_asks_as_the_registered_one_does(published: Path, version: Version) -> None:
    recipe = AnsweringRecipe.model_validate_json((published / "recipe.json").read_text(encoding="utf-8"))
    assert (recipe.task, recipe.model.id, recipe.adapter) == (TASK, PUBLIC, version.adapter)
    assert recipe.target.startswith("annotator-")
    assert recipe.annotators == (recipe.target,)


def test_its_card_says_what_it_is_how_to_ask_it_and_what_was_measured(published: Path) -> None:
    card = ModelCard.load(published / "README.md")
    data = card.data.to_dict()
    assert (data["base_model"], data["library_name"], data["license"]) == (PUBLIC, "peft", "cc-by-4.0")
    assert data["tags"] == ["lora", "capo"]
    text = " ".join(card.text.split())
    recipe = json.loads((published / "recipe.json").read_text(encoding="utf-8"))
    for said in (
        f"It answers as `{recipe['target']}` of the corpus `personas`",
        "pseudonymised, never anonymous",
        "## Intended use",
        "## Limits",
        f"vllm serve {PUBLIC} --enable-lora --max-lora-rank 8 --lora-modules personas.{recipe['target']}=",
        '"content": "A: TEXT A\\nB: TEXT B"',
        "Label: LABEL Explanation: EXPLANATION",
        "| Label agreement, constrained | .64 \\[.54, .74\\] | – | .45 \\[.35, .55\\] | 40 | 1 |",
        "| Attributed k=5, raw | .71 \\[.61, .81\\] | .98 \\[.88, 1.08\\] | .24 \\[.14, .34\\] | 40 | 1 |",
        "| Macro-F1, constrained | not measured | – | – | – | – |",
        "| Perplexity of neutral text (change: ratio) | 20.00 | 22.00 | 1.10 \\[1.05, 1.20\\] | 16 |",
        "All agreed to publication under a pseudonym.",
        "Licence: cc-by-4.0; the base model's own applies besides.",
        "the adapter and every copy and merge of it have to be deleted",
    ):
        assert said in text, said


def test_what_is_not_stated_or_not_at_hand_is_said_to_be_so(version: Version, tmp_path: Path) -> None:
    recipe_evaluation = ArtifactRef.parse(version.tags["capo.evaluation"])
    kept = ArtifactStore().path(recipe_evaluation)
    aside = kept.rename(tmp_path / "aside")
    try:
        facts = export_adapter(version, tmp_path / "out", None, PUBLIC, None)
    finally:
        aside.rename(kept)
    assert facts.metrics is None
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "license" not in card.data.to_dict()
    for said in ("The evaluation was not at hand", "agreed to is **not stated**", "No licence is stated"):
        assert said in card.text


def test_an_adapter_that_vllm_does_not_load_says_so(tiny: ModelRef, tmp_path: Path) -> None:
    version = _register(tiny, adapter_config("dora"), "dora", ["ada"], tmp_path / "adapter")
    facts = export_adapter(version, tmp_path / "out", None, PUBLIC, None)
    assert facts.serving.obstacles == ("it is DoRA",)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**vLLM does not load this adapter**, because it is DoRA." in card
    assert "vllm serve" not in card


def test_ids_in_prompts_are_published_for_a_reason_only(tiny: ModelRef, tmp_path: Path) -> None:
    version = _register(tiny, adapter_config("lora"), "together", ["ada", "ben"], tmp_path / "adapter")
    out = tmp_path / "out"
    with pytest.raises(ReleaseError, match=r"asked by their ids as they stand in the data \(ada, ben\)"):
        export_adapter(version, out, None, PUBLIC, None)
    with pytest.raises(ReleaseError, match="needs a reason"):
        export_adapter(version, out, None, PUBLIC, " ")
    assert not out.exists()
    export_adapter(version, out, None, PUBLIC, "they are invented")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "> **Exported by force.** The reason given: they are invented" in card
    assert "One adapter for 2 annotators of the corpus `together`: ada, ben." in card
    assert "Annotator: ANNOTATOR" in card
    recipe = AnsweringRecipe.model_validate_json((out / "recipe.json").read_text(encoding="utf-8"))
    assert recipe.annotators == ("ada", "ben")


def test_what_cannot_be_exported_leaves_nothing(version: Version, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ReleaseError, match="--base-model"):
        export_adapter(version, out, None, None, None)
    other = release_config().model_copy(
        update={"corpus": release_config().corpus.model_copy(update={"name": "another"})}
    )
    with pytest.raises(ReleaseError, match="is of corpus personas, the configuration of another"):
        export_adapter(version, out, other, PUBLIC, None)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ReleaseError, match="is there already"):
        export_adapter(version, out, None, PUBLIC, None)
    with pytest.raises(RegistryError, match="no version 'champion'"):
        find_version("personas.ada")
