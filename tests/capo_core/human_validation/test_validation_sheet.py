from __future__ import annotations

import csv
import io
import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging_material import ANNOTATORS, N_TRAIN, TASK, item_name, make_corpus, make_generations, split_of

from capo_core.errors import CorpusError, InputFileError, RatingsError
from capo_core.human_validation.blinding import build_validation_set, sign_task, verify_tasks
from capo_core.human_validation.rater_files import write_rater_files
from capo_core.human_validation.sheet import (
    RATING_COLUMNS,
    read_consent,
    read_key,
    write_key,
    write_sheets,
)
from capo_core.spreadsheet import neutralise_cell, restore_cell
from schemas.frames import VALIDATION_KEY, VALIDATION_TASKS
from schemas.human_validation import HumanValidationConfig

SECRET = b"a secret of sixteen bytes and more"
CONFIG = HumanValidationConfig(
    methods=("human", "sft", "capo"), n_tasks=18, n_attention=0, n_repeated=0, group_size=2, n_references=3, seed=5
)


def build(
    generations: pl.DataFrame | None = None, corpus: pl.DataFrame | None = None, secret: bytes = SECRET, **settings: Any
) -> tuple[pl.DataFrame, pl.DataFrame]:
    return build_validation_set(
        make_corpus() if corpus is None else corpus,
        make_generations(("sft", "capo")) if generations is None else generations,
        TASK,
        CONFIG.model_copy(update=settings),
        secret=secret,
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def test_tasks_are_balanced_over_methods_and_annotators() -> None:
    tasks, key = build()
    assert (dict(tasks.schema), dict(key.schema)) == (VALIDATION_TASKS, VALIDATION_KEY)
    # 18 tasks over 3 methods x 3 annotators: 2 each.
    assert Counter(key.select("method", "annotator_id").iter_rows()) == {
        (method, who): 2 for method in CONFIG.methods for who in ANNOTATORS
    }
    assert sorted(tasks["position"]) == list(range(1, 19))


def test_a_number_that_does_not_divide_is_spread_as_evenly_as_it_can_be() -> None:
    _, key = build(n_tasks=12)
    # A full round of 9 and then one diagonal of 3: each method and each annotator 4 times.
    assert set(Counter(key["method"]).values()) == {4}
    assert set(Counter(key["annotator_id"]).values()) == {4}


def test_seeds_take_turns() -> None:
    _, key = build()
    of_models = key.filter(pl.col("method") != "human")
    # Two tasks per method and annotator, one of seed 1 and one of seed 2.
    assert Counter(of_models["seed"]) == {1: 6, 2: 6}


def test_what_is_missing_is_not_made_up() -> None:
    generations = make_generations(("sft", "capo")).with_columns(
        pl.when((pl.col("method") == "capo") & (pl.col("item_id") > item_name(N_TRAIN)))
        .then(None)
        .otherwise("explanation")
        .alias("explanation")
    )
    _, key = build(generations, n_tasks=1000)
    # capo has one explanation per annotator, not enough for a group of 2; 9 items make 4 groups of 2 for each
    # annotator: human 3 x 4, sft 3 x 4 x 2 seeds.
    assert Counter(key["method"]) == {"human": 12, "sft": 24}


def test_no_group_at_all_is_an_error_that_says_what_to_lower() -> None:
    with pytest.raises(CorpusError, match=r"10 explanations by one annotator.*lower human_validation\.group_size"):
        build(group_size=10)


def test_each_task_shows_a_group_of_test_items_and_references_from_training_items() -> None:
    tasks, key = build()
    items = dict(key.select("task_id", "item_ids").iter_rows())
    for row in tasks.iter_rows(named=True):
        numbers = [int(item[4:]) for item in items[row["task_id"]]]
        assert len(set(numbers)) == len(row["explanations"]) == 2
        assert all(split_of(number) == "test" for number in numbers)
        assert all(f"item{n:02d}" in text for n, text in zip(numbers, row["explanations"], strict=True))
        assert row["text_a"] == "\n".join(f"[{i}] first text {n}" for i, n in enumerate(numbers, start=1))
        examples = [text for reference in row["references"] for text in reference["examples"]]
        assert len(examples) == 9
        assert all(split_of(int(text.split("item")[1][:2])) == "train" for text in examples)


def test_the_key_says_who_stands_under_each_letter() -> None:
    tasks, key = build()
    named = dict(key.select("task_id", "candidate_annotators").iter_rows())
    for row in tasks.iter_rows(named=True):
        behind = {c["candidate"]: c["annotator_id"] for c in named[row["task_id"]]}
        assert [r["candidate"] for r in row["references"]] == ["A", "B", "C"]
        for reference in row["references"]:
            author = behind[reference["candidate"]].removeprefix("person-").upper()
            assert all(text.startswith(f"{author} explains") for text in reference["examples"])


def test_letters_and_task_order_are_shuffled() -> None:
    tasks, key = build()
    under_a = [row["candidate_annotators"][0]["annotator_id"] for row in key.iter_rows(named=True)]
    assert set(under_a) == set(ANNOTATORS)
    methods = dict(key.select("task_id", "method").iter_rows())
    order = [methods[task_id] for task_id in tasks.sort("position")["task_id"]]
    assert order not in (sorted(order), sorted(order, reverse=True))
    assert key["task_id"].to_list() == sorted(key["task_id"])


def test_the_set_depends_on_seed_and_content_alone() -> None:
    tasks, key = build()
    again = build(
        make_generations(("sft", "capo")).sample(fraction=1.0, shuffle=True, seed=2),
        make_corpus().sample(fraction=1.0, shuffle=True, seed=1),
    )
    assert again[0].equals(tasks)
    assert again[1].equals(key)
    assert not build(seed=6)[0].equals(tasks)


def test_task_ids_tell_nothing_without_the_secret() -> None:
    ids, other_ids = (set(build(secret=secret)[0]["task_id"]) for secret in (SECRET, b"another secret of some length"))
    assert len(ids) == 18
    assert not ids & other_ids
    with pytest.raises(ValueError, match="the secret has 5 bytes, at least 16"):
        build(secret=b"short")


def test_an_altered_task_does_not_fit_its_signature() -> None:
    tasks, key = build()
    verify_tasks(tasks, key, SECRET)
    first = tasks.row(0, named=True)
    assert sign_task(first, SECRET) == key.filter(pl.col("task_id") == first["task_id"])["signature"].item()
    altered = tasks.with_columns(
        pl.when(pl.col("position") == 1).then(pl.lit("else")).otherwise("text_a").alias("text_a")
    )
    with pytest.raises(RatingsError, match=f"task '{first['task_id']}' differs from the one signed"):
        verify_tasks(altered, key, SECRET)
    forged = tasks.with_columns(pl.lit("0" * 64).alias("signature"))
    with pytest.raises(RatingsError, match=f"task '{first['task_id']}' differs from the one signed"):
        verify_tasks(forged, key, SECRET)
    with pytest.raises(RatingsError, match=f"task '{first['task_id']}' is missing"):
        verify_tasks(tasks.tail(17), key, SECRET)
    with pytest.raises(RatingsError, match="not in the key or stands twice"):
        verify_tasks(pl.concat([tasks, tasks.head(1)]), key, SECRET)


def test_nothing_written_for_raters_names_a_method_an_annotator_or_a_check(tmp_path: Path) -> None:
    # Here the texts themselves name nobody.
    plain = pl.format("they wrote about {}", "item_id").alias("explanation")
    corpus = make_corpus().with_columns(
        pl.when(pl.col("split") == "train")
        .then(pl.format("words {} of no {}", pl.col("annotator_id").rank("dense"), "item_id"))
        .otherwise(plain)
        .alias("explanation")
    )
    config = CONFIG.model_copy(update={"n_attention": 3, "n_repeated": 3, "n_raters": 2})
    generations = make_generations(("sft", "capo")).with_columns(plain)
    tasks, key = build_validation_set(corpus, generations, TASK, config, secret=SECRET)
    write_rater_files(tasks, tmp_path / "sheets", TASK, config, consent="Please consent.")
    written = {path.name: path.read_bytes().decode() for path in (tmp_path / "sheets").iterdir()}
    assert set(written) == {
        "INSTRUCTIONS.md", "CONSENT.md", "rating_page.html",
        "tasks_r01.csv", "tasks_r01.jsonl", "ratings_r01.csv", "tasks_r02.csv", "tasks_r02.jsonl", "ratings_r02.csv",
        "label_studio_config.xml", "label_studio_tasks.json", "argilla_settings.json", "argilla_records.json",
    }  # fmt: skip
    hidden = [*ANNOTATORS, "sft", "capo", "zero_shot", "annotator_id", "attention check", "repeats", '"kind"', '"seed"']
    for name, text in written.items():
        assert not [word for word in hidden if word in text.lower()], name
    assert set(key["kind"]) == {"rating", "attention", "repeat"}


def test_both_forms_of_the_tasks_hold_the_same(tmp_path: Path) -> None:
    tasks, _ = build()
    write_sheets(tasks, tmp_path, TASK, CONFIG)
    lines = [json.loads(line) for line in (tmp_path / "tasks_r01.jsonl").read_text().split("\n") if line]
    assert sorted(lines, key=lambda line: line["position"]) == tasks.sort("position").to_dicts()
    cells = read_csv(tmp_path / "tasks_r01.csv")
    assert [row["task_id"] for row in cells] == [row["task_id"] for row in lines]
    assert cells[0]["explanation_2"] == lines[0]["explanations"][1]
    assert cells[0]["reference_C_3"] == lines[0]["references"][2]["examples"][2]
    template = read_csv(tmp_path / "ratings_r01.csv")
    assert template[0] == dict.fromkeys(RATING_COLUMNS, "") | {
        "task_id": lines[0]["task_id"],
        "signature": lines[0]["signature"],
        "rater_id": "r01",
        "presented": "1",
    }
    assert [row["task_id"] for row in template] == [row["task_id"] for row in lines]
    instructions = (tmp_path / "INSTRUCTIONS.md").read_text(encoding="utf-8")
    assert TASK.question in instructions
    assert "A, B, C" in instructions
    assert "$" not in instructions


def test_every_rater_gets_an_order_of_their_own(tmp_path: Path) -> None:
    tasks, _ = build()
    write_sheets(tasks, tmp_path, TASK, CONFIG)
    orders = [tuple(row["task_id"] for row in read_csv(tmp_path / f"tasks_r0{number}.csv")) for number in (1, 2, 3)]
    assert {frozenset(order) for order in orders} == {frozenset(tasks["task_id"])}
    assert len({*orders, tuple(tasks.sort("position")["task_id"])}) == 4
    write_sheets(tasks.reverse(), tmp_path / "again", TASK, CONFIG)
    assert [row["task_id"] for row in read_csv(tmp_path / "again" / "tasks_r02.csv")] == list(orders[1])


def test_the_consent_text_is_the_teams_own_or_says_what_to_fill_in(tmp_path: Path) -> None:
    assert read_consent(None).count("[TO FILL IN: ") == 5
    own = tmp_path / "consent.md"
    own.write_text("# Consent\n\nOurs.", encoding="utf-8")
    assert read_consent(own) == "# Consent\n\nOurs."
    own.write_text(" \n", encoding="utf-8")
    with pytest.raises(InputFileError, match=r"consent\.md: the consent text is empty"):
        read_consent(own)


def test_no_cell_begins_like_a_formula(tmp_path: Path) -> None:
    dangerous = make_corpus().with_columns(
        pl.lit('=HYPERLINK("x")').alias("text_a"),
        pl.lit("\t+1").alias("text_b"),
        pl.format("@cmd {} {}", "annotator_id", "item_id").alias("explanation"),
    )
    tasks, _ = build(corpus=dangerous, group_size=1)
    write_sheets(tasks, tmp_path, TASK, CONFIG)
    rows = read_csv(tmp_path / "tasks_r01.csv")
    values = [value for row in rows for value in row.values()]
    assert not [value for value in values if value[:1] in set("=+-@\t\r\n")]
    assert {restore_cell(row["text_a"]) for row in rows} == {'=HYPERLINK("x")'}
    assert {restore_cell(row["text_b"]) for row in rows} == {"\t+1"}
    assert restore_cell(rows[0]["reference_A_1"]).startswith("@cmd person-")


@given(st.text(st.sampled_from("=+-@\t\r\n'＝ax "), max_size=4))
def test_neutralised_cells_can_be_restored(text: str) -> None:
    neutralised = neutralise_cell(text)
    assert not neutralised.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
    assert restore_cell(neutralised) == text


def test_an_apostrophe_somebody_wrote_is_kept() -> None:
    assert restore_cell("'tis fine") == "'tis fine"
    assert restore_cell(neutralise_cell("'tis fine")) == "'tis fine"


def test_the_key_is_written_apart_and_for_its_owner_only(tmp_path: Path) -> None:
    tasks, key = build()
    write_sheets(tasks, tmp_path / "sheets", TASK, CONFIG)
    with pytest.raises(ValueError, match="the key must not lie beside the tasks"):
        write_key(key, tmp_path / "sheets" / "key.jsonl")
    path = tmp_path / "private" / "key.jsonl"
    write_key(key, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path).equals(key)
    assert [p.name for p in path.parent.iterdir()] == ["key.jsonl"]


@pytest.mark.parametrize("content", ["{", "[1]", '{"task_id": "t1"}', "\u00ff"])
def test_a_file_that_is_no_key_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputFileError, match=r"key\.jsonl: not a validation key"):
        read_key(path)
