from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from judging_material import ANNOTATORS, TASK
from validation_material import SMALL, make_key, make_rows, make_set

from capo_core.errors import RatingsError
from capo_core.human_validation.rating_figures import summarise_ratings
from capo_core.human_validation.ratings import read_ratings
from capo_core.human_validation.sheet import write_sheets
from schemas.frames import RATINGS

ADA, BO, CY = ANNOTATORS
HEAD = "task_id,signature,rater_id,answer"
KEY = make_key(("t1", "rating", "human", ADA), ("t2", "rating", "human", BO), ("t3", "t1", "sft", ADA))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_ratings_are_matched_with_the_key(tmp_path: Path) -> None:
    rows = "t1,signed-t1,r1,a,sure,12.5,2\nt3,signed-t3,r1,C,,,\nt2,signed-t2,r1,,no idea,3,1\n"
    path = write(tmp_path / "r.csv", f"{HEAD},comment,seconds,presented\n{rows}")
    ratings = read_ratings(path, KEY)
    assert dict(ratings.schema) == RATINGS
    assert ratings.rows() == [
        ("t1", "r1", "A", ADA, True, "rating", None, "human", 1, ADA, ["item-t1"], "sure", 12.5, 2),
        ("t2", "r1", "", None, None, "rating", None, "human", 1, BO, ["item-t2"], "no idea", 3.0, 1),
        ("t3", "r1", "C", CY, False, "repeat", "t1", "sft", 1, ADA, ["item-t3"], "", None, None),
    ]


def test_forms_that_spreadsheets_and_programs_write_read_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.csv", f"{HEAD},comment\nt1,signed-t1,r1,A,-x\nt2,signed-t2,r1,B,\n")
    expected = read_ratings(plain, KEY)
    excel = (
        "\ufefftask_id;signature;rater_id;answer;comment;position\r\n"
        "t1;signed-t1;r1;A;'-x;1\r\n;;;;;\r\nt2;signed-t2;r1; b ;;2\r\n"
    )
    assert read_ratings(write(tmp_path / "excel.csv", excel), KEY).equals(expected)
    lines = [
        {"task_id": "t1", "signature": "signed-t1", "rater_id": "r1", "answer": "A", "comment": "-x"},
        {"task_id": "t2", "signature": "signed-t2", "rater_id": "r1", "answer": "B", "comment": None, "color": 12},
    ]
    jsonl = write(tmp_path / "r.jsonl", "\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert read_ratings(jsonl, KEY).equals(expected)
    nameless = write(tmp_path / "nameless.csv", f"{HEAD},comment\nt1,signed-t1,r1,A,-x\nt2,signed-t2,,B,\n")
    assert read_ratings(nameless, KEY).equals(expected)


def test_cannot_say_is_an_answer_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", f"{HEAD}\nt1,signed-t1,r1,cannot say\nt2,signed-t2,r1,Cannot_Say\n")
    assert read_ratings(path, KEY)["answer"].to_list() == ["", ""]


def test_several_files_are_read_as_one_set(tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", f"{HEAD}\nt1,signed-t1,r1,A\n")
    two = write(tmp_path / "two.csv", f"{HEAD}\nt1,signed-t1,r2,B\n")
    assert read_ratings([one, two], KEY)["rater_id"].to_list() == ["r1", "r2"]
    with pytest.raises(
        RatingsError, match=r"one\.csv, line 2: rater 'r1' has rated task 't1' before, in one\.csv, line 2"
    ):
        read_ratings([one, two, one], KEY)


def test_lines_are_counted_over_cells_of_several_lines(tmp_path: Path) -> None:
    text = f'{HEAD},comment\nt1,signed-t1,r1,A,"two\nlines \u2028 here"\nt2,signed-t2,r1,Z,\n'
    with pytest.raises(RatingsError, match="line 4: answer 'Z'"):
        read_ratings(write(tmp_path / "r.csv", text), KEY)


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(RatingsError, match=r"absent\.csv: cannot be read"):
        read_ratings(tmp_path / "absent.csv", KEY)
    (tmp_path / "r.csv").write_bytes(b"task_id,signature,rater_id,answer\nt1,signed-t1,r\xe9,A\n")
    with pytest.raises(RatingsError, match=r"r\.csv: not UTF-8 at byte 48"):
        read_ratings(tmp_path / "r.csv", KEY)


def test_many_refused_rows_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", f"{HEAD}\n" + "".join(f"x{i},,r1,A\n" for i in range(25)))
    with pytest.raises(RatingsError, match="and 5 more"):
        read_ratings(path, KEY)


def test_tasks_of_another_set_are_not_compared_with(tmp_path: Path) -> None:
    tasks, _ = make_set()
    path = write(tmp_path / "r.csv", f"{HEAD}\nt1,signed-t1,r1,A\n")
    with pytest.raises(ValueError, match="not of the same validation set"):
        read_ratings(path, KEY, tasks)


def test_sheets_go_out_and_ratings_come_back(tmp_path: Path) -> None:
    tasks, key = make_set()
    write_sheets(tasks, tmp_path, TASK, SMALL)
    right = {row["task_id"]: row["answer"] for row in make_rows(tasks, key, "")}
    for rater in ("r01", "r02"):
        path = tmp_path / f"ratings_{rater}.csv"
        with path.open(encoding="utf-8-sig", newline="") as stream:
            template = list(csv.DictReader(stream))
        for row in template[: 17 if rater == "r01" else 5]:  # the second rater stops early
            row |= {"answer": right[row["task_id"]], "comment": "=SUM(A1)"}
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(template[0]))
            writer.writeheader()
            writer.writerows(template)
    ratings = read_ratings([tmp_path / "ratings_r01.csv", tmp_path / "ratings_r02.csv"], key, tasks)
    # 12 to rate, 3 attention checks, 2 repeats, two raters.
    assert ratings.height == 2 * 17
    assert sorted(ratings.filter(rater_id="r02")["presented"]) == list(range(1, 18))
    assert (ratings["answer"] != "").sum() == 17 + 5
    assert ratings["correct"].drop_nulls().all()
    found = summarise_ratings(ratings, key, SMALL, n_bootstrap=50)
    assert found.raters["attention_passed"][0] == found.raters["self_consistency"][0] == 1.0
    sft = found.metrics.filter(method="sft", metric="human_attribution_accuracy", annotator_id="all", condition="raw")
    assert sft["value"].item() == 1.0
    assert sft["n"].item() == 6
