"""How many steps a run has and what each typically costs, for the time left that progress lines show.

The costs are rough seconds on two CPU cores with the bundled model; only their proportions matter, since the run's
own pace corrects them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from capo_core.judging.workload import PAIRS, count_questions
from schemas.config import ExperimentConfig
from tasks.progress import run_progress


def plan_run(
    flow_run_id: str,
    config: ExperimentConfig,
    corpus: Mapping[str, Any],
    stages: Collection[str],
    trainable: Sequence[str],
) -> None:
    """Declare the steps of a run, once the corpus is known.

    Args:
        flow_run_id: whose progress.
        config: the experiment.
        corpus: metadata of the corpus artifact (`annotators`, `n_items` by split).
        stages: names of the stages that this run goes through.
        trainable: annotators with annotations enough for an adapter.
    """
    n_annotators, n_seeds = len(corpus["annotators"]), len(config.seeds)
    n_train, n_test = corpus["n_items"]["train"], corpus["n_items"][config.generation.split]
    n_targets = min(1, len(trainable)) if config.adapter.layout == "shared" else len(trainable)
    methods = config.generation.methods
    trained = {name: n_targets * n_seeds * wanted for name, wanted in _trained(methods).items()}
    n_answering = {"zero_shot": 1, "sft": n_targets, "capo": n_targets}
    n_generations = n_seeds * sum(n_answering.get(method, n_annotators) for method in methods)
    n_responses = n_train * len(trainable) / max(1, n_targets)
    steps = {
        "ingest": {"ingest": (1, 1), "split": (1, 1), "extend": (corpus["version"] - 1, 1)},
        "analyze": {
            "analyze-agreement": (1, 2),
            "analyze-style": (1, 2 + 0.01 * n_train * n_annotators),
            "analyze-convergence": (1, 5 + 0.01 * n_train * n_annotators),
            "analyze-stability": (1, 0.15 * n_train * n_annotators),
        },
        "watch_drift": {"measure-drift": (int(corpus["version"] > 1), 3)},
        "measure_stability": {"analyze-stability": (1, 0.15 * n_train * n_annotators)},
        "select_released": {},
        "pseudonymise": {"pseudonymise": (2, 1)},
        "pair": {"demonstrations": (len(trainable), 0.2), "preferences": (len(trainable), 0.2)},
        "train": {
            "train-sft": (trained["sft"], 6 + 0.15 * n_responses * config.sft.n_epochs),
            "train-capo": (trained["capo"], 8 + 0.4 * n_responses * config.capo.n_epochs),
        },
        "measure_retention": {
            "probe-base": (int(any(trained.values())), 10 + 0.4 * n_test),
            "measure-retention": (sum(trained.values()), 10 + 0.4 * n_test),
        },
        "describe": {
            "write-profile": (
                n_annotators * n_seeds * ("profile" in methods),
                5 + 0.5 * min(config.profile.n_examples, n_train) + 0.05 * config.profile.max_new_tokens,
            )
        },
        "generate": {"generate": (n_generations, 3 + 0.2 * n_test * len(config.generation.decisions))},
        "evaluate": {"evaluate": (1, 10 + 0.2 * n_test * n_annotators)},
        "judge": _plan_judge(config, n_annotators),
        "export": {"export-validation": (1, 1)},
        "import_validation": {"import-validation": (1, 1)},
        "report": {"report": (1, 5)},
        "register": {},
    }
    chosen = {step: cost for stage in stages for step, cost in steps[stage].items()}
    run_progress(flow_run_id).plan(
        {step: count for step, (count, _) in chosen.items()}, {step: seconds for step, (_, seconds) in chosen.items()}
    )


def _plan_judge(config: ExperimentConfig, n_annotators: int) -> dict[str, tuple[int, float]]:
    """Return the judge's steps, how many there are of each and what one costs."""
    counts = count_questions(config.judge, n_annotators, len(config.seeds))
    n_judges, n_about_pairs = len(config.judge.backends), counts.pop(PAIRS, 0)
    return {
        "judge": (n_judges * sum(n > 0 for n in counts.values()), 3 + 0.3 * sum(counts.values()) / max(1, len(counts))),
        "judge-pairs": (n_judges * (n_about_pairs > 0), 3 + 0.3 * n_about_pairs),
        "summarise-verdicts": (int(bool(counts)), 5),
    }


def _trained(methods: tuple[str, ...]) -> dict[str, bool]:
    """Return which adapters are trained: CAPO starts from SFT."""
    return {"sft": bool({"sft", "capo"} & set(methods)), "capo": "capo" in methods}
