"""Suggestions for the next batch: doubt, disagreement and novelty, and files that come back as a batch."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from evaluation_material import ONE_LABEL

from capo_core.batches.suggestion import suggest_items
from capo_core.batches.suggestion_export import CONFIG_FILE, TABLE_FILE, TASKS_FILE, write_suggestions
from capo_core.corpora import read_batch
from schemas.frames import GENERATIONS

TOPICS = {"cats": (1.0, 0.0, 0.0), "dogs": (0.8, 0.6, 0.0), "stars": (0.0, 0.0, 1.0), "tax": (0.0, 1.0, 0.0)}


def embed(texts: list[str]) -> np.ndarray:
    """Place a text by the topic it names."""
    return np.array([next(place for topic, place in TOPICS.items() if topic in text) for text in texts]).reshape(-1, 3)


def pool(*topics: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"item_id": list(topics), "text_a": [f"about {t}" for t in topics], "text_b": ["b"] * len(topics)}
    )


def answers(shares: dict[tuple[str, str], tuple[float, ...]]) -> pl.DataFrame:
    rows = [
        {**dict.fromkeys(GENERATIONS), "annotator_id": who, "item_id": item, "label_logprobs": np.log(p).tolist()}
        for (who, item), p in shares.items()
    ]
    return pl.DataFrame(rows, schema=GENERATIONS)


NOBODY = pl.DataFrame(schema=GENERATIONS)


def test_without_models_what_is_least_like_the_known_comes_first_and_nothing_alike_follows() -> None:
    found = suggest_items(pool("cats", "dogs", "stars", "tax"), "ann", NOBODY, pool("cats"), embed, 3)
    # cosine to cats: dogs .8, stars 0, tax 0; after stars tax is still 1 away, dogs .2
    assert found["item_id"].to_list() == ["stars", "tax", "dogs"]
    assert found["novelty"].to_list() == pytest.approx([1.0, 1.0, 0.2])
    assert found["rank"].to_list() == [1, 2, 3]
    assert found["uncertainty"].null_count() == found["disagreement"].null_count() == 3


def test_doubt_of_the_own_model_and_disagreement_of_all_are_entropies() -> None:
    shares = {
        ("ann", "stars"): (0.5, 0.5), ("bob", "stars"): (0.5, 0.5),
        ("ann", "tax"): (1 - 1e-12, 1e-12), ("bob", "tax"): (1e-12, 1 - 1e-12),
    }  # fmt: skip
    found = suggest_items(pool("stars", "tax"), "ann", answers(shares), pool("cats"), embed, 2).sort("item_id")
    # stars: one bit of log2(2); both models say the same. tax: certain of opposite labels, one bit between them.
    assert found["uncertainty"].to_list() == pytest.approx([1.0, 0.0], abs=1e-9)
    assert found["disagreement"].to_list() == pytest.approx([0.0, 1.0], abs=1e-9)


def test_somebody_without_a_model_is_ranked_by_what_the_others_disagree_on() -> None:
    shares = {
        ("bob", "stars"): (0.9, 0.1),
        ("cyd", "stars"): (0.1, 0.9),
        ("bob", "tax"): (0.9, 0.1),
        ("cyd", "tax"): (0.9, 0.1),
    }
    found = suggest_items(pool("tax", "stars"), "new", answers(shares), pool("cats").clear(), embed, 1)
    assert found["item_id"].to_list() == ["stars"]
    assert found["uncertainty"].null_count() == 1


def test_no_more_than_there_are() -> None:
    assert suggest_items(pool("cats", "tax"), "ann", NOBODY, pool("cats").clear(), embed, 50).height == 2


def test_a_filled_in_table_comes_back_as_a_batch_formulas_and_all(tmp_path: Path) -> None:
    asked = pool("cats", "tax").with_columns(text_a=pl.Series(["=1+1 cats", "about tax"]))
    found = suggest_items(asked, "ann", NOBODY, pool("cats").clear(), embed, 2)
    write_suggestions(found, "ann", ONE_LABEL, tmp_path)
    table = pl.read_csv(tmp_path / TABLE_FILE)
    assert "'=1+1 cats" in table["text_a"]
    filled = table.with_columns(pl.lit("neutral").alias("label"), pl.lit("because").alias("explanation"))
    filled.write_csv(tmp_path / "filled.csv")
    batch = read_batch(tmp_path / "filled.csv", "table", ONE_LABEL)
    assert sorted(batch.annotations["text_a"]) == ["=1+1 cats", "about tax"]
    assert batch.annotations["annotator_id"].unique().to_list() == ["ann"]
    assert batch.quarantine.is_empty()


def test_label_studio_gets_the_tasks_labels_under_the_names_of_a_batch(tmp_path: Path) -> None:
    found = suggest_items(pool("cats", "tax"), "ann", NOBODY, pool("cats").clear(), embed, 2)
    write_suggestions(found, "ann", ONE_LABEL, tmp_path)
    view = ElementTree.fromstring((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))
    choices = view.find("Choices")
    assert choices is not None
    assert [choice.get("value") for choice in choices] == list(ONE_LABEL.labels.names)
    controls = {element.get("name") for element in view if element.get("toName")}
    fields = set(json.loads((tmp_path / TASKS_FILE).read_text(encoding="utf-8"))[0]["data"])
    assert fields | controls >= {"item_id", "text_a", "text_b", "annotator_id", "label", "explanation"}
