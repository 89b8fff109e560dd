"""The lock file says, with hashes and without places, what is asked for; the audit judges what it is told."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)[^\n]*\n((?: {4}--hash=\S+[^\n]*\n)*)", LOCK, re.MULTILINE)
AUDIT = runpy.run_path(str(ROOT / ".ci" / "audit.py"))


def _asked() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    found = [Requirement(text) for text in (*project["dependencies"], *extras)]
    return [requirement for requirement in found if requirement.name != "capo"]


@pytest.mark.parametrize("requirement", _asked(), ids=str)
def test_every_dependency_is_locked_within_its_bounds(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    locked = [version for found, version, _ in ENTRIES if canonicalize_name(found) == name]
    assert locked, f"{name} is not locked; run make lock"
    assert all(requirement.specifier.contains(version, prereleases=True) for version in locked), "run make lock"


def test_every_locked_dependency_has_hashes_and_no_place() -> None:
    assert len(ENTRIES) > 200
    assert [name for name, _, hashes in ENTRIES if "--hash=sha256:" not in hashes] == []
    assert len(re.findall(r"^[a-zA-Z]", LOCK, re.MULTILINE)) == len(ENTRIES)
    assert not re.search(r"://| @ |^-|--index|--find-links", LOCK, re.MULTILINE)


def test_an_advisory_fails_the_audit_unless_its_reason_is_written_down() -> None:
    found = [
        {"name": "sound", "version": "1", "vulns": []},
        {"name": "weak", "version": "2", "vulns": [{"id": "GHSA-1", "aliases": ["CVE-1"], "fix_versions": ["3"]}]},
        {"name": "unknown", "version": "4", "skip_reason": "not found"},
    ]
    assert AUDIT["judge"](found, {}) == ["weak 2: GHSA-1, mended in 3"]
    assert AUDIT["judge"](found, {"CVE-1": "the function is never called"}) == []
    assert all(reason.strip() for reason in AUDIT["read_known"]().values())
