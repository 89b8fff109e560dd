"""What fine-tuning leaves of the base model: how well it reads neutral text, and what it decides unasked for anybody.

Both are read off the base model and off the model with an adapter in the same way, without sampling: the
log-probability of a fixed set of neutral passages, and the most probable label of every held-out item under the
zero-shot prompt, which names no annotator.

With one adapter per annotator the zero-shot prompt is also the one the adapter was trained on, so its decisions are
meant to move towards that annotator; `zero_shot_decision_kept` says how far they did, `zero_shot_label_agreement`
whether they still agree with people at large. A shared adapter is trained on prompts that name an annotator, and what
it does without a name is retention proper.

Notation: T texts, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, Self

import numpy as np
import polars as pl

from capo_core.chat import encode_prompt, encode_response
from capo_core.errors import CorpusError, ModelError
from capo_core.generation.requests import GenerationRequest, build_requests
from capo_core.progress import Progress, silent
from capo_core.prompts import response_opening
from capo_core.statistics.significance import (
    bootstrap_interval,
    draw_resamples,
    hierarchical_ratios,
    percentile_interval,
)
from schemas.config import GenerationConfig, TaskSpec
from schemas.frames import RETENTION, check_columns

NEUTRAL_PERPLEXITY = "neutral_perplexity"
LABEL_AGREEMENT = "zero_shot_label_agreement"
DECISION_KEPT = "zero_shot_decision_kept"


@dataclass(frozen=True)
class ModelProbe:
    """What one model makes of the neutral texts and of the zero-shot prompts.

    Attributes:
        nll: [T] negative log-probability of each text in nats, summed over the tokens counted.
        n_tokens: [T] tokens counted.
        decisions: the label decided, by item_id.
    """

    nll: tuple[float, ...]
    n_tokens: tuple[int, ...]
    decisions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the probe as plain values that `from_json` reads back unchanged."""
        return {"nll": list(self.nll), "n_tokens": list(self.n_tokens), "decisions": dict(self.decisions)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the probe that `to_json` described."""
        return cls(tuple(values["nll"]), tuple(values["n_tokens"]), dict(values["decisions"]))


@dataclass(frozen=True)
class _Figure:
    """One metric of an adapter."""

    metric: str
    base: float
    tuned: float
    change: float
    ci_low: float
    ci_high: float
    n: int


def read_neutral_texts() -> list[str]:
    """Return the neutral passages that capo ships, in their order."""
    content = files("capo_core.evaluation").joinpath("neutral_texts.txt").read_text(encoding="utf-8")
    lines = [line for line in content.splitlines() if not line.startswith("#")]
    return [passage.strip() for passage in "\n".join(lines).split("\n\n") if passage.strip()]


def probe_model(
    model: Any,
    tokenizer: Any,
    corpus: pl.DataFrame,
    split: str,
    task: TaskSpec,
    *,
    batch_size: int = 16,
    progress: Progress = silent,
) -> ModelProbe:
    """Return what a model makes of the neutral texts and of the held-out items.

    Args:
        model: of `models.load_policy`.
        tokenizer: of `models.load_tokenizer`.
        corpus: CORPUS frame.
        split: whose items are decided.
        task: the task asked.
        batch_size: texts or prompts computed at a time; changes figures by rounding only.
        progress: called with texts and items done and in all.

    Raises:
        ModelError: if the model's layers do not allow the grouped layout, or a prompt exceeds the context.
    """
    from capo_core.layout.obstacle import layout_obstacle

    obstacle = layout_obstacle(model.config)
    if obstacle is not None:
        raise ModelError(f"{model.config.model_type}: retention is not measured, because {obstacle}")
    texts = read_neutral_texts()
    asked = zero_shot_requests(corpus, split, task)
    nll, n_tokens = neutral_nll(model, tokenizer, texts, batch_size=batch_size)
    progress(len(texts), len(texts) + len(asked))

    def count_items(n_done: int, n_total: int) -> None:
        progress(len(texts) + n_done, len(texts) + n_total)

    decisions = zero_shot_decisions(
        model, tokenizer, asked, task.labels.names, batch_size=batch_size, progress=count_items
    )
    return ModelProbe(tuple(nll.tolist()), tuple(n_tokens.tolist()), decisions)


def neutral_nll(
    model: Any, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Return each text's negative log-probability in nats and the number of its tokens that were counted, [T] both.

    Σ_t −log p(x_t | x_<t) over all tokens but the first, which nothing predicts (where the tokenizer opens texts with
    a token of its own, that one is the first). The perplexity of several texts is exp(Σ nll / Σ n_tokens). The
    vocabulary head is computed in float32 whatever the model's precision.

    Args:
        model: causal language model with folded attention.
        tokenizer: its tokenizer.
        texts: each of at least two tokens.
        batch_size: texts computed at a time.

    Raises:
        CorpusError: if a text has fewer than two tokens.
    """
    import torch

    from capo_core.layout.prefix_tree import TokenGroup, lay_out
    from capo_core.training.logps import score_states

    groups = []
    for text in texts:
        ids = list(tokenizer(text)["input_ids"])
        if len(ids) < 2:
            raise CorpusError(f"the neutral text {text!r} has {len(ids)} tokens; give texts of at least two")
        groups.append(TokenGroup(ids[:1], (ids[1:],)))
    head = model.get_output_embeddings().weight.float()
    nll: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(groups), batch_size):
            batch = lay_out([[group] for group in groups[start : start + batch_size]]).to(model.device)
            states = model.get_decoder()(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                attention_mask=batch.attention_mask(model.dtype),
                use_cache=False,
            ).last_hidden_state
            logps = score_states(states, head, batch).tokens.double()
            nll += (-logps.new_zeros(len(batch.n_tokens)).index_add(0, batch.response, logps)).tolist()
    return np.array(nll), np.array([len(group.responses[0]) for group in groups])


def zero_shot_requests(corpus: pl.DataFrame, split: str, task: TaskSpec) -> list[GenerationRequest]:
    """Return the zero-shot prompt of every item of a split, which names no annotator, by item_id."""
    config = GenerationConfig.model_validate({"split": split})
    return build_requests(corpus, "zero_shot", [None], task, config, tag=None, seed=0)


def zero_shot_decisions(
    model: Any,
    tokenizer: Any,
    requests: Sequence[GenerationRequest],
    labels: tuple[str, ...],
    *,
    batch_size: int = 16,
    progress: Progress = silent,
) -> dict[str, str]:
    """Return the label of `labels` that a model decides for every item asked for, by item_id.

    The constrained decision of `generation.generate_responses`: the label with the most probable opening
    `Label: X⏎Explanation:`, earlier labels winning ties. Nothing is sampled.

    Raises:
        ModelError: if a prompt exceeds the model's context.
    """
    import torch

    from capo_core.generation.decoding import count_common, read_prefix, read_prompts

    openings = [encode_response(response_opening(label), tokenizer) for label in labels]
    prompts = {request.item_id: encode_prompt(request.prompt, tokenizer) for request in requests}
    limit = model.config.max_position_embeddings - max(map(len, openings))
    if too_long := [item for item, tokens in prompts.items() if len(tokens) > limit]:
        raise ModelError(
            f"item {too_long[0]}: its prompt has {len(prompts[too_long[0]])} tokens, the model's context leaves "
            f"{limit}; use a model with a longer context or leave the item out"
        )
    by_length = sorted(prompts, key=lambda item: (len(prompts[item]), item))
    decisions: dict[str, str] = {}
    with torch.inference_mode():
        n_shared = count_common(list(prompts.values())) if prompts else 0
        prefix = read_prefix(model, prompts[by_length[0]][:n_shared]) if prompts else None
        for start in range(0, len(by_length), batch_size):
            batch = by_length[start : start + batch_size]
            read = read_prompts(model, [prompts[item][n_shared:] for item in batch], openings, prefix)
            best = read.opening_logps.double().argmax(dim=1).tolist()
            decisions |= {item: labels[place] for item, place in zip(batch, best, strict=True)}
            progress(len(decisions), len(prompts))
    return {item: decisions[item] for item in prompts}


def retention_table(
    base: ModelProbe,
    tuned: ModelProbe,
    corpus: pl.DataFrame,
    *,
    method: str,
    target: str,
    seed: int,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Return what an adapter leaves of the base model, with percentile bootstrap intervals of the change.

    `neutral_perplexity`: exp(Σ nll / Σ n_tokens) over the neutral texts; change = tuned / base, 1 being unchanged;
    texts are resampled, both models on the same ones.

    `zero_shot_label_agreement`: the share of an item's annotators who gave the label decided, mean over items; change
    = tuned − base, 0 being unchanged; items are resampled. With four people of whom three say `neutral`, deciding
    `neutral` counts .75: every person has one voice, and items without a majority need no rule of their own. An
    annotator who gave several labels agrees with each.

    `zero_shot_decision_kept`: the share of items decided as the base model decides them; base = 1, change = tuned − 1;
    items are resampled.

    Args:
        base: of the base model.
        tuned: of the model with the adapter, on the same texts and items.
        corpus: CORPUS frame with the items' annotations.
        method: sft or capo.
        target: whom the adapter serves.
        seed: the adapter's; also of the bootstrap.
        n_bootstrap: resamples.
        confidence: of the intervals.

    Returns:
        RETENTION frame of three rows.

    Raises:
        CorpusError: if the probes are of different texts or items, or the corpus lacks an item.
    """
    _require_same_material(base, tuned)
    settings = {"confidence": confidence, "n_bootstrap": n_bootstrap, "seed": seed}
    before, after = (_agreement(probe.decisions, corpus) for probe in (base, tuned))
    kept = np.array([float(tuned.decisions[item] == base.decisions[item]) for item in sorted(base.decisions)])
    figures = [
        _compare_perplexity(base, tuned, n_bootstrap=n_bootstrap, confidence=confidence, seed=seed),
        _compare_shares(LABEL_AGREEMENT, before, after, settings),
        _compare_shares(DECISION_KEPT, np.ones(len(kept)), kept, settings),
    ]
    identity = {"method": method, "target": target, "seed": seed}
    frame = pl.DataFrame([identity | asdict(figure) for figure in figures], schema=RETENTION)
    return check_columns(frame, RETENTION, "retention")


def _compare_perplexity(
    base: ModelProbe, tuned: ModelProbe, *, n_bootstrap: int, confidence: float, seed: int
) -> _Figure:
    counts = np.array(base.n_tokens, dtype=float)
    before, after = (float(np.exp(sum(probe.nll) / counts.sum())) for probe in (base, tuned))
    # log(tuned / base) is the difference of the summed nll over the number of tokens: a ratio over texts.
    more = np.array(tuned.nll) - np.array(base.nll)
    resamples = draw_resamples(len(counts), 1, n_bootstrap, seed)
    replicates = np.exp(hierarchical_ratios(more[None, None], counts[None, None], resamples)[:, 0])
    low, high = percentile_interval(replicates, confidence)
    return _Figure(NEUTRAL_PERPLEXITY, before, after, after / before, low, high, len(counts))


def _compare_shares(metric: str, before: np.ndarray, after: np.ndarray, settings: Mapping[str, Any]) -> _Figure:
    low, high = bootstrap_interval(after - before, **settings)
    base, tuned = float(before.mean()), float(after.mean())
    return _Figure(metric, base, tuned, tuned - base, low, high, len(before))


def _agreement(decisions: Mapping[str, str], corpus: pl.DataFrame) -> np.ndarray:
    """Return the share of each item's annotators who gave the label decided, [I] by item_id."""
    decided = pl.DataFrame({"item_id": list(decisions), "decision": list(decisions.values())})
    agrees = (pl.col("label") == pl.col("decision")).any().cast(pl.Float64).alias("agrees")
    by_item = (
        corpus.join(decided, on="item_id")
        .group_by("item_id", "annotator_id")
        .agg(agrees)
        .group_by("item_id")
        .agg(pl.col("agrees").mean())
        .sort("item_id")
    )
    if by_item.height < len(decisions):
        missing = sorted(set(decisions) - set(by_item["item_id"]))
        raise CorpusError(
            f"{len(missing)} decided items are not in the corpus, e.g. {missing[0]!r}: measure retention against the "
            "corpus the items were taken from"
        )
    return by_item["agrees"].to_numpy()


def _require_same_material(base: ModelProbe, tuned: ModelProbe) -> None:
    if base.n_tokens != tuned.n_tokens or not base.n_tokens:
        raise CorpusError("base and tuned model were probed with different neutral texts, or none; probe both again")
    if set(base.decisions) != set(tuned.decisions) or not base.decisions:
        raise CorpusError("base and tuned model decided different items, or none; probe both on the same split")
