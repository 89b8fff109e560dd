"""The line from raw files to the report, as plain functions that submit steps and hand on their futures.

Each function takes the run's `Line`, which knows the configuration and what earlier stages have submitted. Nothing
here computes: loops go over annotators, methods and seeds, and every call submits a cached step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prefect import get_run_logger
from prefect.futures import PrefectFuture

from capo_core.judging.workload import PAIRS, count_questions, narrow_judge
from capo_core.preference_pairs import RANKED_STRATEGIES
from flows.plan import plan_run
from schemas.artifacts import ArtifactRef, ModelRef, SourceFile
from schemas.config import ExperimentConfig
from schemas.judge import LocalJudge
from schemas.registry import AnsweringRecipe
from schemas.section import Method, TagPosition
from schemas.training import EmbeddingConfig
from tasks.analyze import (
    analyze_agreement,
    analyze_convergence,
    analyze_stability,
    analyze_style,
    measure_drift,
    read_needed_annotations,
)
from tasks.artifact_store import ArtifactStore
from tasks.corpus_history import append_batch, find_new_source, read_history
from tasks.evaluate import evaluate_methods
from tasks.generate import generate_method
from tasks.human_validation import export_validation, find_ratings, import_ratings
from tasks.ingest import ingest_annotations, read_batch_file, split_corpus, take_batch_in
from tasks.judge import judge_method, judge_pairs, summarise_judges
from tasks.pairs import pair_responses, select_demonstrations
from tasks.profiles import write_value_profile
from tasks.promotion import apply_decision, decide
from tasks.registry import Version, fetch_version, find_champion, read_figures, register_adapter
from tasks.release import pseudonymise_corpus
from tasks.report import write_report
from tasks.retention import compare_with_base, probe_base
from tasks.sources import find_source, locate_model, release_secret, secret_id, validation_secret
from tasks.train import SHARED, score_reference, train_capo_adapter, train_sft_adapter

NOBODY = "nobody"
"""Whom zero-shot prompting imitates."""

Reference = PrefectFuture[ArtifactRef]


@dataclass
class Line:
    """What a run has so far: its configuration and the artifacts each stage has produced.

    Attributes:
        config: the experiment.
        flow_run_id: of the flow run.
        stages: names of the stages that the run goes through.
        run_id: of its run in MLflow, once there is one.
        artifacts: by name, in the order they were kept.
        annotators: everybody in the corpus.
        versions: the corpus's versions, the newest last.
        n_train: training annotations of each.
        trainable: annotators with annotations enough for an adapter.
    """

    config: ExperimentConfig
    flow_run_id: str
    stages: tuple[str, ...]
    run_id: str = ""
    artifacts: dict[str, ArtifactRef] = field(default_factory=dict)
    annotators: list[str] = field(default_factory=list)
    versions: list[ArtifactRef] = field(default_factory=list)
    n_train: dict[str, int] = field(default_factory=dict)
    trainable: list[str] = field(default_factory=list)
    _described: dict[ArtifactRef, dict[str, Any]] = field(default_factory=dict)
    _models: dict[tuple[str, str | None], ModelRef] = field(default_factory=dict)

    @property
    def is_shared(self) -> bool:
        """Whether one adapter serves all annotators."""
        return self.config.adapter.layout == "shared"

    @property
    def tag(self) -> TagPosition | None:
        """Where prompts name the annotator, as a shared adapter needs."""
        return self.config.adapter.tag if self.is_shared else None

    @property
    def targets(self) -> list[str]:
        """What is trained for: every annotator with annotations enough, or one adapter that they share."""
        return [SHARED] if self.is_shared and self.trainable else self.trainable

    def answering(self, method: Method) -> list[tuple[str, list[str | None]]]:
        """Return under which names a method answers, each with the annotators in whose place it does."""
        if method == "zero_shot":
            return [(NOBODY, [None])]
        answering = self.trainable if method in ("sft", "capo") else self.shown
        if self.is_shared and method in ("sft", "capo"):
            # Together, so that an item's text is read once for all annotators.
            return [(SHARED, [*answering])] if answering else []
        return [(annotator, [annotator]) for annotator in answering]

    @property
    def shown(self) -> list[str]:
        """Annotators with something to show to a model in its prompt."""
        return [name for name in self.annotators if self.n_train[name]]

    def metadata_of(self, corpus: ArtifactRef) -> dict[str, Any]:
        """Return the metadata of a version of the corpus, verified once per run."""
        if corpus not in self._described:
            self._described[corpus] = ArtifactStore().metadata(corpus)
        return self._described[corpus]

    def members(self, target: str) -> list[str]:
        """Return the annotators whose responses a target's adapter is trained on."""
        return self.trainable if target == SHARED else [target]

    def history_of(self, target: str) -> list[ArtifactRef]:
        """Return the versions of the corpus that changed a target's data, the newest last.

        The newest is what the target's model is made from and asked about: a batch that does not concern an annotator
        changes nothing that was made for that annotator.
        """
        described = [self.metadata_of(version) for version in self.versions]
        if target in (SHARED, NOBODY):
            numbers = {about["version"] for about in described}
        else:
            numbers = {about["changed_in"][target] for about in described if target in about["changed_in"]}
        return [self.versions[number - 1] for number in sorted(numbers)]

    def corpus_of(self, target: str) -> ArtifactRef:
        """Return the version of the corpus that a target's model is made from."""
        return self.history_of(target)[-1]

    def model(self, model_id: str, revision: str | None) -> ModelRef:
        """Return a model's location, found once per run."""
        if (model_id, revision) not in self._models:
            self._models[model_id, revision] = locate_model(model_id, revision)
        return self._models[model_id, revision]

    def base(self) -> ModelRef:
        """Return the base model's location."""
        return self.model(self.config.model.id, self.config.model.revision)

    def encoder(self) -> ModelRef:
        """Return the sentence-embedding model's location."""
        embedding: EmbeddingConfig = self.config.embedding
        return self.model(embedding.id, embedding.revision)

    def keep(self, name: str, future: Reference) -> ArtifactRef:
        """Wait for a step and keep its artifact under a name."""
        self.artifacts[name] = future.result()
        return self.artifacts[name]

    def all_of(self, prefix: str) -> list[ArtifactRef]:
        """Return the kept artifacts whose name starts with `prefix/`, in the order they were kept."""
        return [ref for name, ref in self.artifacts.items() if name.startswith(f"{prefix}/")]


def ingest(line: Line, batch_path: str | None = None) -> None:
    """Read the raw files and split the corpus, then take in its batches; from here on the annotators are known.

    Args:
        line: the run.
        batch_path: a later file, taken in as the newest batch unless its content was before.

    Raises:
        CorpusError: if another run took in a batch meanwhile, or the configuration asks for an older version.
    """
    corpus = line.config.corpus
    sources: list[SourceFile] = [find_source(path) for path in corpus.paths]
    annotators_source = find_source(corpus.annotators_path) if corpus.annotators_path else None
    annotations = ingest_annotations.submit(sources, annotators_source, corpus.format, line.config.task)
    line.keep("annotations", annotations)
    line.versions = [line.keep("corpus", split_corpus.submit(annotations, corpus.max_items, line.config.splits))]
    for taken in read_history(corpus.name, corpus.version).batches:
        _take_in(line, taken.batch)
    if batch_path is not None:
        source = find_new_source(line.config.corpus, batch_path)
        if source is not None:
            batch = read_batch_file.submit(source, annotators_source, corpus.format, line.config.task)
            _take_in(line, line.keep("batch", batch))
            append_batch(corpus.name, line.artifacts["batch"], source, version=len(line.versions))
    metadata = line.metadata_of(line.artifacts["corpus"])
    line.annotators, line.n_train = metadata["annotators"], metadata["n_train"]
    line.trainable = _find_trainable(line)
    plan_run(line.flow_run_id, line.config, metadata, line.stages, line.trainable)


def _take_in(line: Line, batch: ArtifactRef) -> None:
    """Make the corpus's next version."""
    kept, version = line.artifacts, len(line.versions) + 1
    kept["annotations"], kept["corpus"] = take_batch_in.submit(
        kept["annotations"], kept["corpus"], batch, line.config.splits, version
    ).result()
    line.versions.append(kept["corpus"])


def _find_trainable(line: Line) -> list[str]:
    """Return the annotators with as many training annotations as an adapter asks for; name the others in the log."""
    config = line.config
    needed = config.batches.min_annotations
    if needed is None:
        convergence = analyze_convergence.submit(line.artifacts["corpus"], config.task, config.convergence)
        needed = read_needed_annotations(line.keep("convergence", convergence))
    found = [name for name in line.annotators if line.n_train[name] >= needed]
    for name in line.annotators:
        if name not in found:
            get_run_logger().warning(
                "%s: %d training annotations, an adapter asks for %d (batches.min_annotations): prompts only",
                name, line.n_train[name], needed,
            )  # fmt: skip
    return found


def analyze(line: Line) -> None:
    """Measure agreement, how stable each annotator's style is and what it consists of, and how figures settle."""
    config = line.config
    corpus, stability = line.artifacts["corpus"], config.stability
    futures = {
        "agreement": analyze_agreement.submit(corpus, config.task, stability.n_bootstrap, stability.seed),
        "style": analyze_style.submit(corpus, stability),
        "convergence": analyze_convergence.submit(corpus, config.task, config.convergence),
        "stability": analyze_stability.submit(corpus, line.encoder(), stability),
    }
    for name, future in futures.items():
        line.keep(name, future)


def watch_drift(line: Line) -> None:
    """Hold what the newest batch says against what its annotators said before."""
    if len(line.versions) > 1 and line.versions[-1] != line.versions[-2]:
        line.keep("drift", measure_drift.submit(*line.versions[-2:], line.config.stability))


def measure_stability(line: Line) -> None:
    """Measure how well each annotator is told by their explanations, and nothing else."""
    line.keep("stability", analyze_stability.submit(line.artifacts["corpus"], line.encoder(), line.config.stability))


def pseudonymise(line: Line) -> None:
    """Rename the annotators; what comes after knows them by their pseudonyms only, and the newest version as the first.

    All of them count as trainable: pairs are made of everybody.
    """
    known = line.artifacts["source_corpus"] = line.artifacts["corpus"]
    named_by = secret_id(release_secret())
    renamed = line.keep("corpus", pseudonymise_corpus.submit(known, line.config.corpus.name, named_by))
    metadata = line.metadata_of(renamed)
    line.versions, line.annotators, line.n_train = [renamed], metadata["annotators"], metadata["n_train"]
    line.trainable = line.annotators


def pair(line: Line) -> None:
    """Select demonstrations and build preference pairs for every annotator."""
    config = line.config
    encoder = line.encoder() if config.pairs.strategy in RANKED_STRATEGIES else None
    futures = {}
    for annotator in line.trainable:
        corpus = line.corpus_of(SHARED if line.is_shared else annotator)
        futures[f"demonstrations/{annotator}"] = select_demonstrations.submit(corpus, annotator, config.task, line.tag)
        futures[f"preferences/{annotator}"] = pair_responses.submit(
            corpus, annotator, config.task, config.pairs, line.tag, encoder
        )
    for name, future in futures.items():
        line.keep(name, future)


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


def evaluate(line: Line) -> None:
    """Hold all generations against the people."""
    config = line.config
    evaluation = evaluate_methods.submit(
        line.artifacts["corpus"], line.all_of("generations"), line.encoder(), config.task, config.evaluation
    )
    line.keep("evaluation", evaluation)


def judge(line: Line) -> None:
    """Ask every judge about every method's groups, the people's own among them, and about pairs; then sum up."""
    config, asked, corpus = line.config, line.config.judge, line.artifacts["corpus"]
    if not asked.methods:
        return
    # People's own text is judged on the items that the generations are of; any method's tell which these are.
    sources = {method: config.generation.methods[0] if method == "human" else method for method in asked.methods}
    generations = [ref for method in dict.fromkeys(sources.values()) for ref in line.all_of(f"generations/{method}")]
    counts = count_questions(asked, len(line.annotators), len(config.seeds))
    futures = {}
    for number, backend in enumerate(asked.backends, start=1):
        base, model = None, None
        if isinstance(backend, LocalJudge):
            model = backend.model or config.model
            base = line.model(model.id, model.revision)
        for part, n_questions in counts.items():
            if n_questions == 0:
                continue
            own = narrow_judge(asked, backend, part, n_questions / sum(counts.values()))
            about = (base, model, config.task, own)
            futures[f"asked/{number}/{part}"] = (
                judge_pairs.submit(corpus, generations, *about)
                if part == PAIRS
                else judge_method.submit(corpus, line.all_of(f"generations/{sources[part]}"), part, *about)
            )
    verdicts = [line.keep(name, future) for name, future in futures.items()]
    summary = summarise_judges.submit(corpus, generations, verdicts, config.task, asked, list(config.seeds))
    line.keep("verdicts/all", summary)


def export(line: Line) -> None:
    """Make the blinded rating set and, apart from it, its key."""
    config = line.config
    asked = config.human_validation
    generations = [ref for method in asked.methods for ref in line.all_of(f"generations/{method}")]
    consent = find_source(asked.consent_path) if asked.consent_path else None
    signed_by = secret_id(validation_secret())
    sheets, key = export_validation.submit(
        line.artifacts["corpus"], generations, config.task, asked, consent, signed_by
    ).result()
    line.artifacts |= {"validation_tasks": sheets, "validation_key": key}


def import_validation(line: Line, ratings_path: str) -> None:
    """Read the raters' answers back in: one file, or all files of a folder."""
    ratings = import_ratings.submit(
        line.artifacts["validation_tasks"],
        line.artifacts["validation_key"],
        line.all_of("verdicts"),
        find_ratings(ratings_path),
        line.config.human_validation,
    )
    line.keep("ratings", ratings)


def report(line: Line) -> None:
    """Write the page."""
    kept = line.artifacts
    page = write_report.submit(
        line.config, kept["annotations"], kept["corpus"], kept["agreement"], kept["convergence"], kept["stability"],
        kept["style"], line.all_of("preferences"), line.all_of("adapters"), line.all_of("retention"),
        line.all_of("profiles"), line.all_of("generations"), kept["evaluation"], line.all_of("verdicts"),
        kept.get("ratings"),
    )  # fmt: skip
    line.keep("report", page)


def register(line: Line) -> None:
    """Register every target's adapter of the last method trained, of the first seed; the gate decides on champions."""
    config = line.config
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
        list(recipe.annotators), config.task, config.evaluation, config.promotion,
    )  # fmt: skip
    apply_decision.submit(version, line.keep(f"promotion/{target}", decision)).result()
