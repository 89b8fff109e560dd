"""The data set's card: a header that the hub reads, every section, and the plain truth where nothing was stated."""

from __future__ import annotations

import json

import polars as pl
import pytest
from huggingface_hub import DatasetCard
from release_material import STATED, dataset_facts, named_corpus, release_config

from capo_core.errors import ReleaseError
from capo_core.release.dataset import ANNOTATORS_TABLE
from capo_core.release.dataset_card import render_dataset_card
from capo_core.release.k_anonymity import check_privacy, tabulate_annotators
from schemas.release import ReleaseConfig


def flowing(card: str) -> str:
    """Return the text with every line break a space."""
    return " ".join(card.split())


def test_the_header_names_every_table_split_and_file() -> None:
    data = DatasetCard(render_dataset_card(dataset_facts())).data.to_dict()
    files = {part["config_name"]: {one["split"]: one["path"] for one in part["data_files"]} for part in data["configs"]}
    assert files == {
        name: {split: f"data/{name}/{split}.parquet" for split in splits}
        for name, splits in {
            "preferences": ["train", "validation"],
            "demonstrations": ["train", "validation"],
            "annotations": ["train", "validation", "test"],
        }.items()
    }
    assert [part["config_name"] for part in data["configs"] if part.get("default")] == ["preferences"]
    assert data["license"] == "cc-by-4.0"
    assert data["size_categories"] == "n<1K"


def test_every_section_states_what_is_known() -> None:
    card = render_dataset_card(dataset_facts())
    text = flowing(card)
    for section in (
        "Collection", "Annotators", "Consent", "Licence", "Splits", "Pairs", "Quirks", "Risk of re-identification",
        "Use", "Citation",
    ):  # fmt: skip
        assert f"\n## {section}\n" in card
    for said in (
        "40 annotations of 10 items, and pairs",
        "Four personas wrote it in a minute.",
        "All agreed to publication under a pseudonym.",
        "pseudonymised, never anonymous",
        "Contact: team@example.org",
        "Of 45 rows read, 40 were accepted and 5 quarantined (empty explanation 3, unknown label 2)",
        "Empty explanations in the files: 3, all quarantined.",
        "Counted while the files were read: idk marks 7, items 10.",
        "was not measured. It has to be assumed that they can",
        "The prompt names nobody",
        "@misc{personas}",
    ):
        assert said in text
    assert "force" not in text
    assert "seeded sample" not in text


def test_the_pool_counts_each_annotators_rows_and_pairs() -> None:
    facts = dataset_facts()
    card = render_dataset_card(facts)
    # 6 + 2 + 2 annotations; of the 6 + 2 in pairs each is preferred over three others'.
    for who in facts.corpus["annotator_id"].unique():
        assert f"| {who} | 10 | 6 | 2 | 2 | 24 |" in card


def test_what_is_not_stated_is_said_to_be_so_and_why_it_was_exported_stands_first() -> None:
    facts = dataset_facts(config=release_config(ReleaseConfig()), forced="a | reason\nof two lines")
    card = render_dataset_card(facts)
    for said in (
        "How the annotations were collected is not stated.",
        "agreed to is **not stated**. Treat the data as if no consent",
        "None is stated. Without one,",
        "Contact: not stated",
    ):
        assert said in card
    assert card.index("Exported by force.") < card.index("## The task")
    assert "a \\| reason of two lines" in card
    assert "license" not in DatasetCard(card).data.to_dict()


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("MIT", {"license": "mit"}),
        ("mit or apache-2.0", {"license": "other", "license_name": "MIT OR Apache-2.0"}),
        ("LicenseRef-ours", {"license": "other", "license_name": "LicenseRef-ours"}),
    ],
)
def test_a_licence_is_what_the_hub_calls_it(licence: str, fields: dict[str, str]) -> None:
    card = render_dataset_card(dataset_facts(config=release_config(ReleaseConfig(licence=licence))))
    data = DatasetCard(card).data.to_dict()
    assert {name: data.get(name) for name in fields} == fields


def test_a_licence_that_is_none_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"release\.licence: 'CC BY 4' is no SPDX licence expression"):
        render_dataset_card(dataset_facts(config=release_config(ReleaseConfig(licence="CC BY 4"))))


def test_a_sample_and_several_labels_are_counted() -> None:
    corpus = named_corpus()
    second = corpus.head(1).with_columns(label=pl.lit("another"), explanation=pl.lit("and besides"))
    doubled = pl.concat([corpus, second]).sort("item_id", "annotator_id", "label")
    facts = dataset_facts(doubled)
    text = flowing(render_dataset_card(dataset_facts(doubled, counts={**facts.counts, "items": 30})))
    assert "(a seeded sample of whole contexts, of 30 items in the files)" in text
    assert "An annotator gave an item several labels 1 time;" in text


def test_prompts_that_name_the_annotator_are_described() -> None:
    config = release_config()
    shared = config.model_copy(update={"adapter": config.adapter.model_copy(update={"layout": "shared"})})
    assert "The prompt names the annotator on its last line." in render_dataset_card(dataset_facts(config=shared))


def test_published_metadata_are_a_table_of_their_own_with_k_in_the_card() -> None:
    plain = dataset_facts()
    people = sorted(plain.corpus["annotator_id"].unique())
    cities = {name: "Ulm" if number else "Bern" for number, name in enumerate(people)}
    corpus = plain.corpus.with_columns(
        pl.col("annotator_id")
        .map_elements(lambda name: json.dumps({"city": cities[name]}), return_dtype=pl.String)
        .alias("metadata")
    )
    known = tabulate_annotators(corpus, ["city"])
    tables = {**plain.tables, ANNOTATORS_TABLE: known.with_columns(split=pl.lit("train"))}
    config = release_config(STATED.model_copy(update={"annotator_columns": ("city",)}))
    text = render_dataset_card(
        dataset_facts(corpus, config=config, tables=tables, privacy=check_privacy(corpus, ["city"]))
    )
    card = DatasetCard(text)
    assert "annotators" in [one["config_name"] for one in card.data.to_dict()["configs"]]
    # of four people one is in Bern and three in Ulm: all are in groups below 5
    assert "| city | 2 | 1 | 4 |" in text
    assert "shared by k = 1 at least" in text
    assert "- `annotators`: `annotator_id`, `city`;" in text
