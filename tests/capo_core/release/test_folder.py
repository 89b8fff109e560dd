"""A published folder is whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from capo_core.errors import ReleaseError
from capo_core.release.folder import new_folder


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "release"
    with new_folder(target) as folder:
        (folder / "data").mkdir()
        (folder / "data" / "a.txt").write_text("a", encoding="utf-8")
        assert not target.exists()
    assert (target / "data" / "a.txt").read_text(encoding="utf-8") == "a"
    assert [path.name for path in target.parent.iterdir()] == ["release"]


def test_nothing_is_left_of_one_that_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "release") as folder:
            (folder / "half.txt").write_text("half", encoding="utf-8")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "filled folder", "link"])
def test_what_is_there_is_not_written_over(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "release"
    match kind:
        case "file":
            target.write_text("mine", encoding="utf-8")
        case "filled folder":
            target.mkdir()
            (target / "mine.txt").write_text("mine", encoding="utf-8")
        case _:
            target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match="is there already"), new_folder(target):
        pytest.fail("the block must not run")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    with new_folder(tmp_path / "release") as folder:
        (folder / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "b.txt").write_text("b", encoding="utf-8")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["b.txt"]
