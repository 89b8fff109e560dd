"""The example's configuration cut down, so that a tiny random model goes through the whole line in seconds."""

from __future__ import annotations

from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
SMALL = [
    "corpus.max_items=30", "model.dtype=float32", "sft.n_epochs=1", "generation.max_new_tokens=8",
    "stability.group_sizes=[1, 3]", "stability.n_repeats=1", "stability.n_bootstrap=100",
    "stability.n_permutations=200", "stability.reductions=[none, embedding_minus_item_mean]",
    "convergence.n_sizes=3", "convergence.n_repeats=3", "convergence.group_size=2",
    "evaluation.group_sizes=[1, 3]", "evaluation.n_groups=10", "evaluation.n_bootstrap=100",
    "evaluation.reductions=[none]",
    "generation.n_history=2", "profile.n_examples=2", "profile.max_new_tokens=16", "judge.n_groups=1",
    "judge.group_size=2", "human_validation.n_tasks=8", "human_validation.group_size=1",
]  # fmt: skip
