"""Consent over the line: who refuses is analysed, modelled and released in nothing, from the moment it is known."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest
from canaries import LABELS, SUBJECTS

from capo_core.config_file import load_config
from capo_core.errors import CorpusError
from flows import stages
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks.storage.artifact_store import ArtifactStore

EXAMPLE = Path(__file__).parent.parent.parent / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
COLUMNS = ("item_id", "text_a", "text_b", "annotator_id", "label", "explanation", "consent")
SMALL = [
    "name=consent", "stability.group_sizes=[1]", "stability.n_repeats=1", "stability.n_bootstrap=100",
    "stability.n_permutations=100", "stability.n_folds=2", "stability.reductions=[none]",
    "stability.classifiers=[ngrams]", "stability.normalisations=[none]", "convergence.n_sizes=3",
    "convergence.n_repeats=3", "convergence.group_size=1", "batches.min_annotations=3",
]  # fmt: skip


def write(path: Path, consents: dict[str, str], items: range = range(15)) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        for number, (who, consent) in enumerate(consents.items()):
            for item in items:
                texts = (f"The {SUBJECTS[item % 10]} number {item} was sold.", f"Somebody bought thing {item}.")
                why = f"{who} says that the {SUBJECTS[item % 10]} went in {item}"
                writer.writerow((f"i{item}", *texts, who, LABELS[(item + number) % 3], why, consent))
    return path


def configure(corpus: str, path: Path, *more: str) -> ExperimentConfig:
    return load_config(EXAMPLE, [*SMALL, f"corpus.name={corpus}", f"corpus.paths=[{path}]", *more])


def people_in(references: dict[str, str], prefix: str) -> set[str]:
    """Return everybody named in the main tables of artifacts whose name begins so."""
    store, found = ArtifactStore(), set()
    for name, reference in references.items():
        if name.startswith(prefix):
            table = store.read_table(ArtifactRef.parse(reference))
            for column in ("annotator_id", "rejected_annotator_id"):
                found |= set(table[column]) if column in table.columns else set()
    return found


def test_who_refuses_is_neither_chosen_nor_rejected_nor_analysed_nor_released(
    tmp_path: Path, prefect_server: None
) -> None:
    everything = "analysis, modelling, release"
    path = write(
        tmp_path / "c.csv",
        {"all": everything, "also": everything, "noana": "modelling, release", "nomod": "analysis release",
         "norel": "analysis;modelling", "silent": ""},
    )  # fmt: skip
    config = configure("refused", path)
    paired = stages.pairs(config)
    assert people_in(paired, "demonstrations/") == people_in(paired, "preferences/") == {
        "all", "also", "norel", "silent",
    }  # fmt: skip
    analysed = stages.analyze(config)
    assert people_in(analysed, "corpus/analysis") == {"all", "also", "nomod", "norel", "silent"}
    told = ArtifactStore().read_table(ArtifactRef.parse(analysed["agreement"]))
    assert "noana" not in set(told["annotator_a"]) | set(told["annotator_b"])
    released = stages.release_dataset(config)
    assert people_in(released, "source_corpus") == {"all", "also", "nomod", "silent"}
    assert len(people_in(released, "preferences/")) == 3  # nomod's words are in no pair
    assert len(people_in({"corpus": released["corpus"]}, "corpus")) == 4

    strict = configure("refused", path, "corpus.require_consent=true")
    assert people_in(stages.pairs(strict), "demonstrations/") == {"all", "also", "norel"}


def test_a_refusal_in_a_later_batch_leaves_the_pairs_of_others_too(tmp_path: Path, prefect_server: None) -> None:
    config = configure("later", write(tmp_path / "c.csv", {"ann": "", "bob": "", "cyd": ""}))
    assert people_in(stages.pairs(config), "preferences/ann") == {"ann", "bob", "cyd"}
    stages.ingest(config, str(write(tmp_path / "monday.csv", {"cyd": "none"}, range(20, 21))))
    after = stages.pairs(config)
    assert people_in(after, "preferences/") == {"ann", "bob"}
    texts = pl.concat(
        ArtifactStore().read_table(ArtifactRef.parse(ref)).select("prompt", "chosen", "rejected")
        for name, ref in after.items() if name.startswith("preferences/")
    )  # fmt: skip
    assert "cyd says" not in texts.write_json()


def test_where_too_few_consent_it_says_what_is_missing(tmp_path: Path, prefect_server: None) -> None:
    config = configure("few", write(tmp_path / "c.csv", {"ann": "analysis, modelling", "bob": "analysis", "cyd": ""}))
    few = config.model_copy(update={"corpus": config.corpus.model_copy(update={"require_consent": True})})
    assert stages.ingest(few)
    with pytest.raises(CorpusError, match=r"modelling: without the 2 who do not consent to it there is 1 annotator"):
        stages.pairs(few)
