"""What imitates them: adapters, profiles, what every method answers, and what training cost the base model."""

from __future__ import annotations

from flows.line import Line, Reference
from tasks.generate import generate_method
from tasks.pairs import select_demonstrations
from tasks.profiles import write_value_profile
from tasks.retention import compare_with_base, probe_base
from tasks.train import score_reference, train_capo_adapter, train_sft_adapter


def train(line: Line) -> None:
    """Train SFT and, from it, CAPO adapters for every target and seed, as far as the methods ask for them."""
    config = line.config
    if not {"sft", "capo"} & set(config.generation.methods):
        return
    futures = {}
    for seed in config.seeds:
        for target in line.targets:
            sft = _train_sft(line, target, seed)
            futures[f"adapters/sft/{target}/{seed}"] = sft
            if "capo" in config.generation.methods:
                preferences = [line.artifacts[f"preferences/{name}"] for name in line.members(target)]
                about = (target, line.base(), config.model, config.adapter)
                # TRL's trainer computes a reference of its own.
                reference = (
                    score_reference.submit(preferences, sft, *about, config.capo.limits, seed)
                    if config.capo.trainer == "grouped"
                    else None
                )
                futures[f"adapters/capo/{target}/{seed}"] = train_capo_adapter.submit(
                    preferences, sft, reference, *about, config.capo, seed
                )
    for name, future in futures.items():
        line.keep(name, future)


def _train_sft(line: Line, target: str, seed: int) -> Reference:
    """Submit the training of a target's SFT adapter, from that of the version before on where so configured."""
    config = line.config
    about = (target, line.base(), config.model, config.adapter, config.sft, seed)
    before: Reference | None = None
    for corpus in line.history_of(target)[:-1] if config.batches.start == "previous" else []:
        present = line.metadata_of(corpus)["annotators"]
        demonstrations = [
            select_demonstrations.submit(corpus, name, config.task, line.tag)
            for name in line.members(target)
            if name in present
        ]
        before = train_sft_adapter.submit(demonstrations, *about, before)
    newest = [line.artifacts[f"demonstrations/{name}"] for name in line.members(target)]
    return train_sft_adapter.submit(newest, *about, before)


def measure_retention(line: Line) -> None:
    """Measure what every adapter that was trained leaves of the base model."""
    config = line.config
    if not line.all_of("adapters"):
        return
    asked = (line.base(), config.model, config.task, config.generation.split, config.generation.batch_size)
    # What an adapter is asked is that of its own version of the corpus, and so is what the base model is asked.
    corpora = {target: line.corpus_of(target) for target in line.targets}
    probes = {corpus: probe_base.submit(corpus, *asked) for corpus in corpora.values()}
    futures = {}
    for seed in config.seeds:
        for target in line.targets:
            for method in ("sft", "capo"):
                adapter = line.artifacts.get(f"adapters/{method}/{target}/{seed}")
                if adapter is not None:
                    corpus = corpora[target]
                    futures[f"retention/{method}/{target}/{seed}"] = compare_with_base.submit(
                        corpus, adapter, probes[corpus], method, target, *asked,
                        config.evaluation.n_bootstrap, config.evaluation.confidence, seed,
                    )  # fmt: skip
    for name, future in futures.items():
        line.keep(name, future)


def describe(line: Line) -> None:
    """Let the base model describe every annotator, with every seed, where a method prompts with the description."""
    config = line.config
    if "profile" not in config.generation.methods:
        return
    futures = {
        f"profiles/{annotator}/{seed}": write_value_profile.submit(
            line.corpus_of(annotator), annotator, line.base(), config.model, config.task, config.profile, seed
        )
        for seed in config.seeds
        for annotator in line.shown
    }
    for name, future in futures.items():
        line.keep(name, future)


def generate(line: Line) -> None:
    """Let every method answer the held-out items, as every annotator and with every seed."""
    config = line.config
    futures = {}
    for seed in config.seeds:
        for method in config.generation.methods:
            for target, annotators in line.answering(method):
                adapter = line.artifacts[f"adapters/{method}/{target}/{seed}"] if method in ("sft", "capo") else None
                profile = line.artifacts[f"profiles/{target}/{seed}"] if method == "profile" else None
                futures[f"generations/{method}/{target}/{seed}"] = generate_method.submit(
                    line.corpus_of(target), adapter, profile, method, target, annotators, line.base(), config.model,
                    config.task, config.generation.narrow(method), line.tag, seed,
                )  # fmt: skip
    for name, future in futures.items():
        line.keep(name, future)
