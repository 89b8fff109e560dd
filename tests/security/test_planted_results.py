"""Records planted in Prefect's result store under a step's own key: none is executed, each is computed again."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from payloads import pickled
from prefect import flow
from prefect.settings import get_current_settings

from schemas.artifacts import ArtifactRef
from schemas.frames import RETENTION, empty
from tasks.step import Step, step

CALLS: list[str] = []


@step("probe-planted", version=1)
def make_probe(step: Step, who: str) -> ArtifactRef:
    CALLS.append(who)
    return step.write("retention", {"data.parquet": empty(RETENTION)}, metadata={"who": who})


@flow(name="probe-planted")
def probe(who: str) -> ArtifactRef:
    return make_probe(who)


def _plant(marker: Path) -> dict[str, Any]:
    pickle_text = base64.encodebytes(pickled(marker)).decode()
    command = {"__class__": "subprocess.Popen", "data": {"args": ["mkdir", str(marker)]}}
    called = {"__class__": "os.mkdir", "data": {"path": str(marker)}}
    return {
        "pickle": ({"type": "pickle", "picklelib": "pickle"}, pickle_text),
        "cloudpickle": ({"type": "pickle", "picklelib": "cloudpickle"}, pickle_text),
        "compressed pickle": ({"type": "compressed", "serializer": {"type": "pickle"}}, pickle_text),
        "JSON that names a class": ({"type": "json"}, json.dumps(command)),
        "JSON that names a function": ({"type": "json"}, json.dumps(called)),
        "our serializer with a pickle": ({"type": "capo-reference"}, pickle_text),
        "our serializer with a class": ({"type": "capo-reference"}, json.dumps(called)),
        "our serializer with a path": ({"type": "capo-reference"}, f"retention/../../../../{marker}"),
        "a class as the serializer": ({"type": "os.mkdir", "path": str(marker)}, "x"),
        "no record": ("", ""),
    }  # fmt: skip


@pytest.mark.parametrize("name", _plant(Path("x")))
def test_a_planted_record_is_set_aside_and_the_step_computed_again(
    name: str, prefect_server: None, tmp_path: Path
) -> None:
    CALLS.clear()
    first = probe(name)
    folder = Path(get_current_settings().results.local_storage_path)
    # Beside the records of other tests, some of which were damaged on purpose.
    (own,) = [path for path in folder.iterdir() if path.is_file() and str(first) in path.read_text(errors="replace")]
    record = json.loads(own.read_text())
    marker = tmp_path / "executed"
    serializer, result = _plant(marker)[name]
    planted = {**record, "metadata": {**record["metadata"], "serializer": serializer}, "result": result}
    own.write_text(json.dumps(planted) if serializer else str(marker))
    assert probe(name) == first
    assert len(CALLS) == 2
    assert not marker.exists()
    assert json.loads(own.read_text())["result"] == str(first)


def test_the_payloads_would_work_if_anything_executed_them(tmp_path: Path) -> None:
    pickle.loads(pickled(tmp_path / "executed"))
    assert (tmp_path / "executed").is_dir()
