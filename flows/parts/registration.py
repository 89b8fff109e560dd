"""Which adapters are offered: registered versions, and the gate that makes one the champion."""

from __future__ import annotations

from prefect import get_run_logger

from flows.line import Line
from schemas.registry import AnsweringRecipe
from tasks.generate import generate_method
from tasks.promotion import apply_decision, decide
from tasks.registry import Version, fetch_version, find_champion, read_figures, register_adapter, retire_refusing


def register(line: Line) -> None:
    """Register every target's adapter of the last method trained, of the first seed; the gate decides on champions."""
    config = line.config
    retire_refusing(config.corpus.name, line.refusing)
    method = next((name for name in ("capo", "sft") if line.all_of(f"adapters/{name}")), None)
    if method is None:
        return
    seed, evaluation = config.seeds[0], line.artifacts["evaluation"]
    for target in line.targets:
        recipe = AnsweringRecipe(
            corpus=config.corpus.name,
            target=target,
            annotators=tuple(line.members(target)),
            method=method,
            seed=seed,
            task=config.task,
            model=config.model,
            fingerprint=line.base().fingerprint,
            tag=line.tag,
            generation=config.generation.narrow(method),
            adapter=line.artifacts[f"adapters/{method}/{target}/{seed}"],
            corpus_version=line.corpus_of(target),
            evaluation=evaluation,
            retention=line.artifacts.get(f"retention/{method}/{target}/{seed}"),
        )
        version = register_adapter.submit(recipe, line.run_id, read_figures(evaluation, method, target)).result()
        _decide_promotion(line, version, recipe)


def _decide_promotion(line: Line, version: Version, recipe: AnsweringRecipe) -> None:
    """Hold a registered adapter against the champion and make it champion if the gate lets it through.

    The champion is asked the challenger's held-out items with the challenger's seed. A champion that was asked
    something else cannot be compared; then people decide.
    """
    config, target, method = line.config, recipe.target, recipe.method
    champion = find_champion(version.name)
    if champion is not None and champion.adapter == version.adapter:
        return
    asked, learned = None, None
    if champion is not None:
        before = fetch_version(champion)
        if before.task != config.task:
            get_run_logger().warning(
                "%s: its champion was asked another task; compare and promote by hand", version.name
            )
            return
        base = line.model(before.model.id, before.model.revision)
        asked = generate_method.submit(
            recipe.corpus_version, before.adapter, None, before.method, target, [*before.annotators], base,
            before.model, config.task, recipe.generation, before.tag, recipe.seed,
        )  # fmt: skip
        learned = before.corpus_version
    decision = decide.submit(
        recipe.corpus_version, line.artifacts[f"generations/{method}/{target}/{recipe.seed}"], asked, learned,
        recipe.evaluation, line.artifacts[f"retention/{method}/{target}/{recipe.seed}"], method, target,
        list(recipe.annotators), config.task, config.evaluation, config.promotion, config.corpus.require_consent,
    )  # fmt: skip
    apply_decision.submit(version, line.keep(f"promotion/{target}", decision)).result()
