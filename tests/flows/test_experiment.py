"""A matrix on the bundled corpus with a tiny random model: the table, the runs in MLflow, and nothing done twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_model import save_tiny_model

from capo_core.config_file import load_config
from flows.experiment import experiment
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from schemas.experiment import ExperimentMatrix
from tasks import tracking
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home

EXAMPLES = Path(__file__).parent.parent.parent / "deployments" / "configs" / "example"
PEOPLE = ("ada", "ben", "chi", "dov")
SEEDS = (13, 14)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    return _load("nli", tmp_path_factory)


def _load(half: str, tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    model = save_tiny_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)
    return load_config(EXAMPLES / f"{half}-smollm2-135m.yaml", [f"model.id={model.path}", "model.dtype=float32"])


def _matrix(*strategies: str, **sections: Any) -> ExperimentMatrix:
    overrides = {
        "corpus.max_items": 30, "sft.n_epochs": 1, "generation.max_new_tokens": 8, "generation.n_history": 2,
        "evaluation": {"group_sizes": [1, 5], "reductions": ["none"], "n_groups": 10, "n_bootstrap": 100},
    }  # fmt: skip
    return ExperimentMatrix.model_validate(
        {
            "name": "compared",
            "configs": ["nli-smollm2-135m.yaml"],
            "overrides": overrides,
            "methods": ["zero_shot", "sft", "capo"],
            "layouts": ["shared"],
            "pair_strategies": strategies,
            "seeds": SEEDS,
        }
        | sections
    )


@pytest.fixture(scope="module")
def first_run(config: ExperimentConfig, prefect_server: None) -> dict[str, str]:
    return experiment(_matrix("all"), [config])


@pytest.fixture(scope="module")
def grown_run(first_run: dict[str, str], config: ExperimentConfig) -> dict[str, str]:
    """The same matrix with one pair strategy more, after the first."""
    return experiment(_matrix("all", "nearest"), [config])


def _children(level: str) -> list[list[Any]]:
    """Return the children at one level of every run of the experiment, in the order of the runs' beginning."""
    client = tracking.tracking_client()
    found = client.get_experiment_by_name("compared")
    assert found is not None
    where = [found.experiment_id]
    parents = client.search_runs(where, "tags.`capo.level` = 'flow'", order_by=["attributes.start_time ASC"])
    return [
        client.search_runs(where, f"tags.mlflow.parentRunId = '{run.info.run_id}' and tags.`capo.level` = '{level}'")
        for run in parents
    ]


def _results(references: dict[str, str]) -> pl.DataFrame:
    return ArtifactStore().read_table(ArtifactRef.parse(references["experiment"]))


def test_the_table_holds_every_arm_with_its_methods_and_comparisons(grown_run: dict[str, str]) -> None:
    results = _results(grown_run)
    metrics = results.filter(pl.col("kind") == "metric")
    assert set(metrics["method"]) == {"human", "majority", "zero_shot", "sft", "capo"}
    assert results.select("corpus", "layout", "pair_strategy").unique().sort("pair_strategy").rows() == [
        ("example-nli", "shared", "all"),
        ("example-nli", "shared", "nearest"),
    ]
    evaluations = [reference for key, reference in grown_run.items() if key.startswith("evaluation/")]
    assert results["evaluation"].unique().sort().to_list() == sorted(evaluations)
    compared = results.filter((pl.col("kind") == "comparison") & (pl.col("metric") == "label_agreement"))
    gain = compared.filter((pl.col("method") == "capo") & (pl.col("compared_with") == "sft"))
    assert set(gain["decision"]) == {"sampled", "greedy", "constrained"}
    assert gain["n_seeds"].unique().to_list() == [2]


def test_baselines_and_sft_are_the_same_under_every_strategy(grown_run: dict[str, str]) -> None:
    shared = _results(grown_run).filter(pl.col("method").is_in(["human", "majority", "zero_shot", "sft"]))
    metrics = shared.filter(pl.col("kind") == "metric").drop("evaluation", "pair_strategy")
    # The encoder rounds a text in the tenth decimal by the company it is embedded in.
    metrics = metrics.with_columns(pl.col(pl.Float64).round(7))
    assert metrics.unique().height * 2 == metrics.height


def test_the_table_is_where_a_user_finds_it_in_three_forms(grown_run: dict[str, str]) -> None:
    folder = ArtifactStore().path(ArtifactRef.parse(grown_run["experiment"]))
    for published, stored in (("md", "results.md"), ("tex", "results.tex"), ("parquet", "data.parquet")):
        path = capo_home() / "reports" / f"compared-results.{published}"
        assert path.read_bytes() == (folder / stored).read_bytes()
    text = (folder / "results.md").read_text(encoding="utf-8")
    assert "| any | zero-shot |" in text
    assert text.count("interval above 0") == 2, "one check of the gain per arm"


def test_every_cell_is_a_child_run_with_its_parameters_and_figures(grown_run: dict[str, str]) -> None:
    _, cells, *_ = _children("cell")
    found = {(run.data.params["pair_strategy"], run.data.params["seed"]) for run in cells}
    assert found == {(strategy, str(seed)) for strategy in ("all", "nearest") for seed in SEEDS}
    assert all(run.data.params["methods"] == "['zero_shot', 'sft', 'capo']" for run in cells)
    name = "capo/label_agreement/constrained"
    own = [run.data.metrics[name] for run in cells if run.data.params["pair_strategy"] == "nearest"]
    # Every cell has as many decisions, so the arm's agreement is the mean of its cells'.
    pooled = _results(grown_run).row(
        by_predicate=(pl.col("pair_strategy") == "nearest") & (pl.col("method") == "capo")
        & (pl.col("kind") == "metric") & (pl.col("metric") == "label_agreement")
        & (pl.col("decision") == "constrained"),
        named=True,
    )  # fmt: skip
    assert sum(own) / 2 == pytest.approx(pooled["value"])


def test_a_strategy_more_computes_only_what_is_its_own(grown_run: dict[str, str]) -> None:
    first, grown, *_ = ([str(run.info.run_name) for run in runs] for runs in _children("step"))
    assert max(Counter(first).values()) == 3, "nothing but the evaluation, of the arm and two cells, has one name"
    assert Counter(grown) == {
        **{f"preferences {who}": 1 for who in PEOPLE},
        **{f"reference shared seed {seed}": 1 for seed in SEEDS},
        **{f"train-capo shared seed {seed}": 1 for seed in SEEDS},
        **{f"generate capo shared seed {seed}": 1 for seed in SEEDS},
        "evaluate": 3,
        "collect-results": 1,
    }


def test_a_second_run_computes_nothing(grown_run: dict[str, str], config: ExperimentConfig) -> None:
    assert experiment(_matrix("all", "nearest"), [config]) == grown_run
    assert _children("step")[-1] == []
    assert len(_children("cell")[-1]) == 4


def test_adapters_answer_the_other_corpus_and_arms_run_side_by_side(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPO_FANOUT", "threads:2")
    configs = [_load(half, tmp_path_factory) for half in ("nli", "paraphrase")]
    matrix = _matrix(
        "all", name="moved", configs=["nli.yaml", "paraphrase.yaml"], methods=["sft"], seeds=[13], transfer=True
    )
    references = experiment(matrix, configs)

    results = _results(references)
    moved = results.filter(pl.col("condition").str.starts_with("transfer:"))
    read = moved.filter(pl.col("metric") == "parse_rate").sort("corpus")
    assert read.select("corpus", "condition", "method", "decision", "n").rows() == [
        ("example-nli", "transfer:example-paraphrase", "sft", "sampled", 6),  # a fifth of 30 items
        ("example-paraphrase", "transfer:example-nli", "sft", "sampled", 6),
    ]
    assert set(moved["evaluation"]) == {
        reference for key, reference in references.items() if key.startswith("transfer")
    }
    assert "## Transfer" in (capo_home() / "reports" / "moved-results.md").read_text(encoding="utf-8")
