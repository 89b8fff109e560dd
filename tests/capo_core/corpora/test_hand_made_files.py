"""Files made by hand to trip readers: each is read as expected or refused with a reason, within its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hand_made_files import HAND_MADE
from hand_made_forms import HandMade
from limited_reading import read_within_limits


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each file, by name."""
    folder = tmp_path_factory.mktemp("hand-made")
    found: dict[str, dict[str, Any]] = {}
    # What one kind of file leaves in memory is not held against another.
    for reader, suffix in sorted({(made.reader, made.suffix) for made in HAND_MADE.values()}):
        mine = {}
        for place, (name, made) in enumerate(HAND_MADE.items()):
            if (made.reader, made.suffix) == (reader, suffix):
                mine[name] = folder / f"{place}{suffix}"
                mine[name].write_bytes(made.make())
        found |= dict(zip(mine, read_within_limits(reader, list(mine.values())), strict=True))
    return found


@pytest.mark.parametrize(("name", "made"), HAND_MADE.items(), ids=HAND_MADE)
def test_every_file_is_read_as_expected_or_refused_with_the_reason(
    name: str, made: HandMade, told: dict[str, dict[str, Any]]
) -> None:
    found = told[name]
    if made.says:
        assert found["outcome"] == "refused", found
        assert Path(found["path"]).name in found["says"]
        assert made.says in found["says"]
        return
    assert found["outcome"] == "read", found
    if "n" in found:
        assert (found["n"], 0) == made.rows
        return
    accepted, refused = found["rows_accepted"] + found.get("withdrawals", 0), found["rows_quarantined"]
    assert found["rows_in"] == accepted + refused
    assert made.rows in (None, (accepted, refused)), found


def test_there_are_at_least_sixty() -> None:
    assert len(HAND_MADE) >= 60
