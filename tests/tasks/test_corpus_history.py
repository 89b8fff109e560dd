"""The history of a corpus: entries are created once, at home or where artifacts are shared."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from capo_core.errors import CorpusError
from schemas.artifacts import ArtifactRef, SourceFile
from schemas.batches import TakenBatch
from tasks.corpus_history import append_batch, read_history

BATCH = ArtifactRef(kind="batch", sha256="a" * 64, rows=1, schema_version=1)


def source(name: str) -> SourceFile:
    return SourceFile(path=f"/in/{name}", name=name, sha256=f"{ord(name[0]):064x}")


@pytest.fixture(params=["at home", "shared"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Return a function that gives the folder of corpus `c`."""
    monkeypatch.setenv("CAPO_HOME", str(tmp_path / "home"))
    if request.param == "at home":
        return lambda: tmp_path / "home" / "corpora" / "c"
    (tmp_path / "share").mkdir()
    monkeypatch.setenv("CAPO_ARTIFACTS", (tmp_path / "share").as_uri())
    return lambda: tmp_path / "share" / "corpora" / "c"


def test_versions_are_the_batches_in_order(place: Callable[[], Path]) -> None:
    assert read_history("c").version == 1
    for version, name in ((2, "b.csv"), (3, "a.csv")):
        append_batch("c", BATCH, source(name), version=version)
    assert [taken.file for taken in read_history("c").batches] == ["b.csv", "a.csv"]
    assert [taken.file for taken in read_history("c", 2).batches] == ["b.csv"]
    assert read_history("c", 1).batches == ()
    assert read_history("another").version == 1
    with pytest.raises(CorpusError, match="version 4 is asked for, the newest is 3"):
        read_history("c", 4)


def test_of_many_who_take_in_a_batch_at_once_one_succeeds(place: Callable[[], Path]) -> None:
    def attempt(letter: str) -> bool:
        try:
            append_batch("c", BATCH, source(f"{letter}.csv"), version=2)
        except CorpusError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, "abcdefgh"))
    assert sum(outcomes) == 1
    with pytest.raises(CorpusError, match=r"another batch was taken in meanwhile; take z\.csv in again"):
        append_batch("c", BATCH, source("z.csv"), version=2)
    assert read_history("c").version == 2


def test_an_entry_that_is_gone_or_spoiled_is_an_error_and_no_shorter_history(place: Callable[[], Path]) -> None:
    for version, name in ((2, "b.csv"), (3, "a.csv")):
        append_batch("c", BATCH, source(name), version=version)
    entry = place() / "000002.json"
    content = entry.read_bytes()
    entry.write_bytes(b"{}")
    with pytest.raises(CorpusError, match=r"000002\.json: is not a batch of a corpus"):
        read_history("c")
    entry.unlink()
    with pytest.raises(CorpusError, match="version 2 of c is missing; restore it from a backup"):
        read_history("c")
    entry.write_bytes(content)
    assert read_history("c").version == 3


def test_no_changed_byte_of_an_entry_is_believed(place: Callable[[], Path]) -> None:
    append_batch("c", BATCH, source("b.csv"), version=2)
    entry = place() / "000002.json"
    content = entry.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        entry.write_bytes(changed)
        with pytest.raises(CorpusError, match=r"000002\.json: is not a batch of a corpus"):
            read_history("c")


def test_an_entry_of_before_entries_were_sealed_is_read(place: Callable[[], Path]) -> None:
    taken = TakenBatch(batch=BATCH, file="b.csv", sha256="b" * 64, taken_at=datetime.now(UTC))
    place().mkdir(parents=True)
    (place() / "000002.json").write_text(taken.model_dump_json(indent=1))
    assert read_history("c").batches == (taken,)
