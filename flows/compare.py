"""The flow behind `capo compare`: two finished runs, found by name, on one page."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from schemas.artifacts import ArtifactRef
from tasks import tracking
from tasks.compare import check_comparable, compare_evaluations, find_run, publish_comparison


@flow(name="compare", flow_run_name="compare {run_a} {run_b}", persist_result=False)
def compare(run_a: str, run_b: str) -> str:
    """Return the path of the page on two runs; it is logged to MLflow too.

    Args:
        run_a: MLflow run id, or the reference or sha256 of an evaluation or report.
        run_b: likewise.

    Raises:
        ConfigError: if a name is not one run's, or the runs are of different corpora, splits or tasks.
    """
    first, second = find_run(run_a), find_run(run_b)
    check_comparable(first, second)
    names = {"run_a": str(first.evaluation), "run_b": str(second.evaluation)}
    artifacts: dict[str, ArtifactRef] = {}
    title = f"compare {first.title} with {second.title}"
    with tracking.tracked_flow("compare", title, str(flow_run.id), names, artifacts) as run_id:
        artifacts["report"] = compare_evaluations.submit(
            first.corpus,
            [first.generations, second.generations],
            [first.title, second.title],
            [first.evaluation, second.evaluation],
            first.task,
            first.config,
        ).result()
        path = publish_comparison(artifacts["report"], first, second)
        tracking.log_file(run_id, path)
        get_run_logger().info("comparison: %s", path)
    return str(path)
