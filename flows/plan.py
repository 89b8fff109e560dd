"""How many steps a run has and what each typically costs, for the time left that progress lines show.

The costs are rough seconds on two CPU cores with the bundled model; only their proportions matter, since the run's
own pace corrects them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.config import ExperimentConfig
from tasks.progress import run_progress


def plan_run(flow_run_id: str, config: ExperimentConfig, corpus: Mapping[str, Any]) -> None:
    """Declare the steps of a whole run, once the corpus is known.

    Args:
        flow_run_id: whose progress.
        config: the experiment.
        corpus: metadata of the corpus artifact (`annotators`, `n_items` by split).
    """
    n_annotators, n_seeds = len(corpus["annotators"]), len(config.seeds)
    n_train, n_test = corpus["n_items"]["train"], corpus["n_items"][config.generation.split]
    n_targets = 1 if config.adapter.layout == "shared" else n_annotators
    methods = config.generation.methods
    n_models = {name: (n_targets * n_seeds if wanted else 0) for name, wanted in _trained(methods).items()}
    n_generations = n_seeds * sum(1 if method == "zero_shot" else n_annotators for method in methods)
    responses_per_target = n_train * n_annotators / n_targets
    run_progress(flow_run_id).plan(
        {
            "ingest": 1, "split": 1, "analyze-agreement": 1, "analyze-stability": 1,
            "demonstrations": n_annotators, "preferences": n_annotators,
            "train-sft": n_models["sft"], "train-capo": n_models["capo"],
            "generate": n_generations, "evaluate": 1, "judge": len(config.judge.methods),
            "export-validation": 1, "report": 1,
        },
        {
            "ingest": 1, "split": 1, "analyze-agreement": 2, "analyze-stability": 0.25 * n_train * n_annotators / 4,
            "demonstrations": 0.2, "preferences": 0.2,
            "train-sft": 5 + 0.15 * responses_per_target * config.sft.n_epochs,
            "train-capo": 8 + 0.4 * responses_per_target * config.capo.n_epochs,
            "generate": 2 + 0.4 * n_test, "evaluate": 5 + 0.1 * n_test * n_annotators,
            "judge": 2 + 0.3 * config.judge.n_groups * n_annotators**2,
            "export-validation": 1, "report": 5,
        },
    )  # fmt: skip


def _trained(methods: tuple[str, ...]) -> dict[str, bool]:
    """Return which adapters are trained: CAPO needs SFT, too."""
    return {"sft": bool({"sft", "capo"} & set(methods)), "capo": "capo" in methods}
