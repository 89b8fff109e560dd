"""Look every locked dependency up in the advisory database; exit with 1 if one has an advisory that nobody has judged.

    python .ci/audit.py

Where the database cannot be reached, or cannot be trusted to have answered, nothing is said about any dependency:
that is printed as NOT AUDITED and does not fail the run. Whether it answers is seen from a package that is known to
have advisories. Advisories that do not concern capo stand in known_advisories.toml beside this file, with the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOCK = HERE.parent / "requirements.lock"
KNOWN = HERE / "known_advisories.toml"
PROBE = "jinja2==2.10\n"
"""Has had advisories since 2019."""


def look_up(requirements: Path) -> list[dict[str, Any]] | str:
    """Return what pip-audit says of every requirement, or why it says nothing."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
    done = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off", "--timeout", "30"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return (done.stderr.strip().splitlines() or ["no answer"])[-1][:300]


def read_known() -> dict[str, str]:
    """Return the reason why each known advisory does not concern capo, by id."""
    return {one["id"]: one["reason"] for one in tomllib.loads(KNOWN.read_text(encoding="utf-8"))["advisory"]}


def judge(dependencies: list[dict[str, Any]], known: dict[str, str]) -> list[str]:
    """Return a line for each advisory that nobody has judged."""
    return [
        f"{one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}"
        for one in dependencies
        for found in one.get("vulns", [])
        if not {found["id"], *found["aliases"]} & known.keys()
    ]


def main() -> int:
    """Print what was found and return the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / "probe.txt"
        probe.write_text(PROBE, encoding="utf-8")
        answered = look_up(probe)
    if isinstance(answered, str) or not any(one.get("vulns") for one in answered):
        why = answered if isinstance(answered, str) else "it knows nothing of a package that has advisories"
        print(f"NOT AUDITED: the advisory database cannot be asked from here ({why})")
        return 0
    found = look_up(LOCK)
    if isinstance(found, str):
        print(f"NOT AUDITED: {found}")
        return 0
    skipped = [one["name"] for one in found if "skip_reason" in one]
    unjudged = judge(found, read_known())
    print(f"audited: {len(found) - len(skipped)} of {len(found)} locked dependencies, {len(unjudged)} new advisories")
    if skipped:
        print(f"NOT AUDITED: {', '.join(skipped)}")
    for line in unjudged:
        print(f"  {line}; raise the version, or say in {KNOWN.name} why it does not concern capo")
    return 1 if unjudged else 0


if __name__ == "__main__":
    sys.exit(main())
