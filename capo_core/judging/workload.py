"""How many questions a judge will be asked, part by part, and each part's share of the judge's budget."""

from __future__ import annotations

from capo_core.judging.groups import HUMAN
from capo_core.judging.pairwise import list_pairs
from schemas.judge import JudgeConfig, LocalJudge, OpenAIJudge

PAIRS = "pairs"


def count_questions(config: JudgeConfig, n_annotators: int, n_seeds: int) -> dict[str, int]:
    """Return how many questions there are about each method by itself, and under `pairs` about all pairs of them.

    That many where explanations suffice for all groups; `human` includes the controls.

    Args:
        config: what is asked.
        n_annotators: people in the corpus.
        n_seeds: of the generations.
    """
    n_groups = config.n_groups * n_annotators * len(config.normalisations)
    n_orders = n_annotators if config.n_orders is None else min(config.n_orders, n_annotators)
    orders = {"attribution": n_orders, "same_author": 2}
    of_each = n_groups * sum(n for protocol, n in orders.items() if protocol in config.protocols)
    # People's own text has no seed; beside it stands its control.
    counts = {method: of_each * (2 if method == HUMAN else n_seeds) for method in config.methods}
    if "pairwise" in config.protocols:
        counts[PAIRS] = 2 * n_groups * (len(list_pairs(config)) * n_seeds + (HUMAN in config.methods))
    return counts


def share_budget(backend: OpenAIJudge, share: float) -> OpenAIJudge:
    """Return the endpoint's configuration with that share of its budget, so that parts asked apart stay within it.

    Args:
        backend: with limits of tokens and cost, or without.
        share: in (0, 1].
    """
    tokens, cost = backend.max_tokens_spent, backend.max_cost
    return backend.model_copy(
        update={
            "max_tokens_spent": None if tokens is None else max(1, int(tokens * share)),
            "max_cost": None if cost is None else cost * share,
        }
    )


def narrow_judge(config: JudgeConfig, backend: LocalJudge | OpenAIJudge, part: str, share: float) -> JudgeConfig:
    """Return what one judge is asked about one part, and nothing else, so that a change elsewhere leaves it as it is.

    Args:
        config: what is asked of all judges.
        backend: the judge.
        part: a method, or `pairs` for all pairs of methods.
        share: of the judge's budget.
    """
    own = share_budget(backend, share) if isinstance(backend, OpenAIJudge) else backend
    if part == PAIRS:
        return config.model_copy(update={"backends": (own,), "protocols": ("pairwise",)})
    alone = tuple(protocol for protocol in config.protocols if protocol != "pairwise")
    return config.narrow(part).model_copy(update={"backends": (own,), "protocols": alone})
