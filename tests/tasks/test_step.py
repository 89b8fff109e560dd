"""Steps under Prefect: computed once, cached by content, recomputed when their artifact is gone, named in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings

from schemas.artifacts import ArtifactRef
from schemas.frames import RETENTION, empty
from schemas.training import PairConfig
from tasks import tracking
from tasks.step import GPU, Step, describe_step, step
from tasks.storage.artifact_store import ArtifactStore

CALLS: list[str] = []


@step("probe-source", version=1)
def make_source(step: Step, annotator_id: str, config: PairConfig) -> ArtifactRef:
    CALLS.append(step.label)
    return step.write("retention", {"data.parquet": empty(RETENTION)}, metadata={"who": annotator_id})


@step("probe-derived", version=1)
def derive(step: Step, source: ArtifactRef, n: int) -> ArtifactRef:
    CALLS.append(step.label)
    who = step.store.metadata(source)["who"]
    return step.write("retention", {"data.parquet": empty(RETENTION)}, metadata={"from": who, "n": n})


@step("probe-pair", version=1)
def make_two(step: Step, source: ArtifactRef) -> tuple[ArtifactRef, ArtifactRef]:
    CALLS.append(step.label)
    tables = {"data.parquet": empty(RETENTION)}
    return step.write("retention", tables, metadata={"part": 1}), step.write("retention", tables, metadata={"part": 2})


@flow(name="probe")
def probe(who: str = "Ann1", n: int = 1) -> list[State]:
    tracking.start_flow_run("probe", "probe", str(flow_run.id), {"who": who})
    source = make_source.submit(who, PairConfig())
    derived = derive.submit(source, n)
    two = make_two.submit(source)
    for future in (source, derived, two):
        future.wait()
    return [source.state, derived.state, two.state]


@pytest.fixture
def calls(prefect_server: None) -> list[str]:
    """What was computed in this test. The home is the session's: each test imitates somebody of its own."""
    CALLS.clear()
    return CALLS


@pytest.mark.parametrize(
    ("url", "uses_models", "tags"),
    [("http://127.0.0.1:4200/api", True, {GPU}), ("http://127.0.0.1:4200/api", False, set()), (None, True, set())],
)
def test_only_a_server_that_stays_is_asked_for_a_slot(
    url: str | None, uses_models: bool, tags: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(step: Step, n: int) -> int:
        return n

    monkeypatch.setattr("tasks.step.STEP_VERSIONS", {})
    with temporary_settings({PREFECT_API_URL: url}):
        made = step("probe-tagged", version=1, uses_models=uses_models)(body)
    assert made.tags == tags
    assert made.uses_models == uses_models


def test_a_second_run_computes_nothing_and_returns_the_same(calls: list[str]) -> None:
    first = [state.result() for state in probe("Ann1")]
    assert sorted(calls) == ["probe-derived", "probe-pair", "probe-source Ann1"]
    states = probe("Ann1")
    assert sorted(calls) == ["probe-derived", "probe-pair", "probe-source Ann1"]
    assert [state.name for state in states] == ["Cached"] * 3
    assert [state.result() for state in states] == first
    assert isinstance(first[2], tuple)


def test_a_changed_value_recomputes_what_depends_on_it_only(calls: list[str]) -> None:
    probe("Ann2", n=1)
    calls.clear()
    probe("Ann2", n=2)
    assert calls == ["probe-derived"]


@pytest.mark.parametrize("harm", ["delete", "damage"])
def test_a_lost_artifact_is_remade_and_nothing_else(calls: list[str], harm: str) -> None:
    source = probe(harm)[0].result()
    path = ArtifactStore().path(source) / "data.parquet"
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(b"x" * path.stat().st_size)
    calls.clear()
    states = probe(harm)
    assert calls == [f"probe-source {harm}"]
    assert states[0].result() == source
    ArtifactStore().verify(source)


def test_a_step_whose_lineage_is_damaged_is_computed_again(calls: list[str]) -> None:
    source = probe("lineage")[0].result()
    (record,) = [r for r in ArtifactStore().lineage() if r["writes"] == [str(source)]]
    path = ArtifactStore().computations.path(record["key"])
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":3'))
    calls.clear()
    states = probe("lineage")
    assert calls == ["probe-source lineage"]
    assert states[0].result() == source
    assert [r["version"] for r in ArtifactStore().lineage() if r["writes"] == [str(source)]] == [1]


def test_mlflow_names_what_each_step_read_and_wrote(calls: list[str]) -> None:
    source, derived, _ = (state.result() for state in probe("Ann3"))
    client = tracking.tracking_client()
    experiment = client.get_experiment_by_name("probe")
    assert experiment is not None
    children = client.search_runs([experiment.experiment_id], f"tags.`capo.writes.retention.000` = '{derived}'")
    (child,) = [run for run in children if run.info.run_name == "probe-derived"]
    tags = child.data.tags
    assert tags["capo.reads.retention.000"] == str(source)
    assert tags["capo.writes.retention.000"] == str(derived)
    assert child.data.params["n"] == "1"
    parent = client.get_run(tags["mlflow.parentRunId"])
    assert parent.data.params == {"who": "Ann3"}
    assert child.info.status == "FINISHED"


def test_lineage_tells_how_an_artifact_came_about(calls: list[str]) -> None:
    source, derived, _ = (state.result() for state in probe("Ann4"))
    (record,) = [r for r in ArtifactStore().lineage() if str(derived) in r["writes"]]
    assert record["step"] == "probe-derived"
    assert record["reads"] == [str(source)]
    assert record["config"] == {"n": 1}


def test_a_step_refuses_data_without_identity(calls: list[str]) -> None:
    @flow
    def wrong() -> None:
        derive(Path("data.csv"), 1)

    with pytest.raises(TypeError, match="no stable identity"):
        wrong()


def test_labels_tell_runs_of_a_step_apart() -> None:
    assert (
        describe_step("generate", {"method": "sft", "annotator_id": "Ann1", "seed": 13}) == "generate sft Ann1 seed 13"
    )
    assert describe_step("generate", {"method": "zero_shot", "annotator_id": None}) == "generate zero_shot"
