from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from judging_material import ANNOTATORS, TASK, make_corpus, make_generations

from capo_core.errors import RatingsError
from capo_core.human_validation.blinding import build_validation_set
from capo_core.human_validation.ratings import read_ratings, summarise_ratings
from capo_core.human_validation.sheet import write_sheets
from schemas.frames import METRICS, RATINGS, VALIDATION_KEY
from schemas.human_validation import HumanValidationConfig

ADA, BO, CY = ANNOTATORS


def make_key() -> pl.DataFrame:
    """Return the key of four tasks: two of human text by Ada and Bo, two of sft for Ada and Bo. A is Ada in all."""
    rows = [
        {
            "task_id": f"t{number}",
            "signature": "",
            "method": method,
            "seed": 1,
            "annotator_id": annotator,
            "item_ids": [f"item{number}", f"item{number}b"],
            "candidate_annotators": [
                {"candidate": letter, "annotator_id": who} for letter, who in zip("ABC", ANNOTATORS, strict=True)
            ],
        }
        for number, (method, annotator) in enumerate(
            [("human", ADA), ("human", BO), ("sft", ADA), ("sft", BO)], start=1
        )
    ]
    return pl.DataFrame(rows, schema=VALIDATION_KEY)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def figure(metrics: pl.DataFrame, metric: str, method: str, who: str = "all") -> dict[str, Any]:
    rows = metrics.filter(
        (pl.col("metric") == metric) & (pl.col("method") == method) & (pl.col("annotator_id") == who)
    ).to_dicts()
    assert len(rows) == 1, f"{len(rows)} rows of {metric} {method} {who}"
    return rows[0]


def test_ratings_are_matched_with_the_key(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "task_id,rater_id,answer,comment\nt1,r1,a,sure\nt3,r1,C,\nt2,r1,,no idea\n")
    ratings = read_ratings(path, make_key())
    assert dict(ratings.schema) == RATINGS
    assert ratings.rows() == [
        ("t1", "r1", "A", ADA, True, "human", "sure"),
        ("t2", "r1", "", None, None, "human", "no idea"),
        ("t3", "r1", "C", CY, False, "sft", ""),
    ]


def test_forms_that_spreadsheets_and_programs_write_read_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.csv", "task_id,rater_id,answer,comment\nt1,r1,A,x\nt2,r1,B,\n")
    expected = read_ratings(plain, make_key())
    excel = "\ufefftask_id;rater_id;answer;comment;position\r\nt1;r1;A;x;1\r\n;;;;\r\nt2;r1; b ;;2\r\n"
    assert read_ratings(write(tmp_path / "excel.csv", excel), make_key()).equals(expected)
    lines = [
        {"task_id": "t1", "rater_id": "r1", "answer": "A", "comment": "x"},
        {"task_id": "t2", "rater_id": "r1", "answer": "B", "comment": None, "seconds": 12},
    ]
    jsonl = write(tmp_path / "r.jsonl", "\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert read_ratings(jsonl, make_key()).equals(expected)
    nameless = write(tmp_path / "nameless.csv", "task_id,rater_id,answer,comment\nt1,r1,A,x\nt2,,B,\n")
    assert read_ratings(nameless, make_key()).equals(expected)


def test_several_files_are_read_as_one_set(tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", "task_id,rater_id,answer\nt1,r1,A\n")
    two = write(tmp_path / "two.csv", "task_id,rater_id,answer\nt1,r2,B\n")
    assert read_ratings([one, two], make_key())["rater_id"].to_list() == ["r1", "r2"]
    with pytest.raises(
        RatingsError, match=r"one\.csv, line 2: rater 'r1' has rated task 't1' before, in one\.csv, line 2"
    ):
        read_ratings([one, two, one], make_key())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.csv", "task_id,rater_id,answer\nt9,r1,A\n", "r.csv, line 2: unknown task 't9'"),
        (
            "r.csv",
            "task_id,rater_id,answer\nt1,r1,A\nt1,r1,B\n",
            "r.csv, line 3: rater 'r1' has rated task 't1' before",
        ),
        ("r.csv", "task_id,rater_id,answer\nt1,r1,D\n", "r.csv, line 2: answer 'D' for task 't1' is none of A, B, C"),
        ("r.csv", "task_id,rater_id,answer\nt1,r1,AB\n", "r.csv, line 2: answer 'AB'"),
        ("r.csv", "task_id,rater_id,answer\nt1,,A\n", "r.csv, line 2: no rater_id for task 't1'"),
        ("r.csv", "task_id,rater_id,answer\nt1,r1,A\nt2,r2,A\nt3,,A\n", "r.csv, line 4: no rater_id for task 't3'"),
        ("r.csv", "task_id,answer\nt1,A\n", "r.csv, line 1: missing columns ['rater_id']"),
        ("r.csv", "task_id,rater_id,answer,answer\nt1,r1,A,B\n", "r.csv, line 1: columns ['answer'] stand twice"),
        ("r.csv", "task_id,rater_id,answer\nt1,r1,A,B\n", "r.csv, line 2: more cells than columns: ['B']"),
        ("r.csv", 'task_id,rater_id,answer\nt1,r1,"A\n', "not readable as CSV"),
        ("r.csv", "", "r.csv, line 1: missing columns"),
        ("r.csv", "task_id,rater_id,answer\n", "r.csv: there are no ratings in it"),
        ("r.jsonl", '{"task_id": "t1"\n', "r.jsonl, line 1: not JSON"),
        ("r.jsonl", '\n["t1"]\n', "r.jsonl, line 2: not a JSON object"),
        ("r.jsonl", '{"task_id": "t1", "answer": "A"}\n', "r.jsonl, line 1: missing columns ['rater_id']"),
        (
            "r.jsonl",
            '{"task_id": "t1", "rater_id": 1, "answer": "A"}\n',
            "expected text or null, found {'rater_id': 1}",
        ),
    ],
)
def test_bad_ratings_are_refused_with_file_line_and_value(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(RatingsError) as caught:
        read_ratings(write(tmp_path / name, text), make_key())
    assert message in str(caught.value)


def test_lines_are_counted_over_cells_of_several_lines(tmp_path: Path) -> None:
    text = 'task_id,rater_id,answer,comment\nt1,r1,A,"two\nlines \u2028 here"\nt2,r1,Z,\n'
    with pytest.raises(RatingsError, match="line 4: answer 'Z'"):
        read_ratings(write(tmp_path / "r.csv", text), make_key())


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(RatingsError, match=r"absent\.csv: cannot be read"):
        read_ratings(tmp_path / "absent.csv", make_key())
    path = tmp_path / "latin.csv"
    path.write_bytes("task_id,rater_id,answer,comment\nt1,r1,A,schön\n".encode("latin-1"))
    # The heading has 32 bytes, "t1,r1,A,sch" 11.
    with pytest.raises(RatingsError, match=r"latin\.csv: not UTF-8 at byte 43"):
        read_ratings(path, make_key())


def test_every_bad_row_is_listed_up_to_a_limit(tmp_path: Path) -> None:
    text = "task_id,rater_id,answer\n" + "".join(f"u{i},r1,A\n" for i in range(25))
    with pytest.raises(RatingsError) as caught:
        read_ratings(write(tmp_path / "r.csv", text), make_key())
    lines = str(caught.value).splitlines()
    # A heading, 20 of the 25 rows, and how many more there are.
    assert len(lines) == 22
    assert lines[-1] == "and 5 more"


def test_figures_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    # t1 (human, Ada): A A       -> 1
    # t2 (human, Bo):  B A       -> 1/2
    # t3 (sft, Ada):   A B       -> 1/2
    # t4 (sft, Bo):    - C       -> 0 of one answer
    rows = ["t1,r1,A", "t1,r2,A", "t2,r1,B", "t2,r2,A", "t3,r1,A", "t3,r2,B", "t4,r1,", "t4,r2,C"]
    ratings = read_ratings(write(tmp_path / "r.csv", "\n".join(["task_id,rater_id,answer", *rows])), make_key())
    metrics = summarise_ratings(ratings, make_key(), seed=5, n_bootstrap=500)
    assert dict(metrics.schema) == METRICS
    human = figure(metrics, "human_attribution_accuracy", "human")
    # (1 + 1/2) / 2; resampling two tasks gives 1/2, 3/4 or 1, the extremes in a quarter of the cases each.
    assert (human["value"], human["ci_low"], human["ci_high"], human["n"]) == (0.75, 0.5, 1.0, 2)
    assert (human["group_size"], human["decision"], human["condition"]) == (2, None, "raw")
    sft = figure(metrics, "human_attribution_accuracy", "sft")
    assert (sft["value"], sft["ci_low"], sft["ci_high"], sft["n"], sft["decision"]) == (0.25, 0.0, 0.5, 2, "sampled")
    assert figure(metrics, "human_attribution_accuracy", "sft", BO)["value"] == 0.0
    assert figure(metrics, "human_answer_rate", "human")["value"] == 1.0
    answered = figure(metrics, "human_answer_rate", "sft")
    assert (answered["value"], answered["n"]) == (0.75, 4)
    assert figure(metrics, "human_chance", "sft")["value"] == pytest.approx(1 / 3)
    # Coincidences of t1 to t3 (t4 has one answer): Ada-Ada 2, Ada-Bo 2, Bo-Ada 2; n = 6, n_Ada = 4, n_Bo = 2.
    # D_o = 4/6; D_e = 2 * 4 * 2 / (6 * 5) = 16/30; alpha = 1 - (2/3) / (8/15) = -1/4.
    alpha = figure(metrics, "rater_alpha", "all")
    assert alpha["value"] == pytest.approx(-0.25)
    assert alpha["n"] == 3


def test_agreement_of_a_single_rater_is_not_measured(tmp_path: Path) -> None:
    ratings = read_ratings(write(tmp_path / "r.csv", "task_id,rater_id,answer\nt1,r1,A\nt2,r1,B\n"), make_key())
    metrics = summarise_ratings(ratings, make_key(), seed=5)
    assert figure(metrics, "rater_alpha", "all")["value"] is None
    # Nobody rated a task of sft: no figure, and none made up.
    unrated = figure(metrics, "human_attribution_accuracy", "sft")
    assert (unrated["value"], unrated["ci_low"], unrated["n"]) == (None, None, 0)
    assert figure(metrics, "human_answer_rate", "sft")["value"] is None


def test_raters_who_always_name_the_same_person_have_no_defined_agreement(tmp_path: Path) -> None:
    rows = "t1,r1,A\nt1,r2,A\nt2,r1,A\nt2,r2,A\n"
    ratings = read_ratings(write(tmp_path / "r.csv", "task_id,rater_id,answer\n" + rows), make_key())
    alpha = figure(summarise_ratings(ratings, make_key(), seed=5), "rater_alpha", "all")
    assert (alpha["value"], alpha["n"]) == (None, 2)


def test_sheets_go_out_and_ratings_come_back(tmp_path: Path) -> None:
    config = HumanValidationConfig(methods=("human", "sft"), n_tasks=12, group_size=2, n_references=2, seed=5)
    generations = make_generations(("sft",), (1,))
    tasks, key = build_validation_set(make_corpus(), generations, TASK, config, secret=b"sixteen bytes at least")
    write_sheets(tasks, tmp_path / "sheets", TASK)
    paths = [rate_by_script(tmp_path, "r1", careful=True), rate_by_script(tmp_path, "r2", careful=False)]
    ratings = read_ratings(paths, key)
    assert ratings.height == 24
    metrics = summarise_ratings(ratings, key, seed=5)
    # Human text names its author, the careful rater always finds him. The other one always says A, which is right
    # in as many tasks as the key has the author under A.
    truth = {
        row["task_id"]: (row["method"], row["candidate_annotators"][0]["annotator_id"] == row["annotator_id"])
        for row in key.iter_rows(named=True)
    }
    for method in ("human", "sft"):
        first = [hit for of_method, hit in truth.values() if of_method == method]
        by_hand = (1.0 + sum(first) / 6) / 2
        assert figure(metrics, "human_attribution_accuracy", method)["value"] == pytest.approx(by_hand)
        assert figure(metrics, "human_attribution_accuracy", method)["n"] == 6


def rate_by_script(directory: Path, rater: str, *, careful: bool) -> Path:
    """Fill in the template from what the sheet shows, as a rater would, and return the file."""
    sheets = directory / "sheets"
    with (sheets / "tasks.csv").open(encoding="utf-8-sig", newline="") as stream:
        shown = {row["task_id"]: row for row in csv.DictReader(stream)}
    with (sheets / "ratings_template.csv").open(encoding="utf-8-sig", newline="") as stream:
        template = list(csv.DictReader(stream))
    for row in template:
        task = shown[row["task_id"]]
        text = task["explanation_1"]
        author = text.split(" as ")[1].split()[0] if " as " in text else text.split()[0]
        found = next(letter for letter in "ABC" if task[f"reference_{letter}_1"].startswith(author))
        row |= {"rater_id": rater, "answer": found if careful else "A"}
    path = directory / f"ratings_{rater}.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(template[0]))
        writer.writeheader()
        writer.writerows(template)
    return path
