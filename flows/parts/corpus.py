"""What is known of people: the corpus and its batches, what is analysed of it, and the pairs made of it."""

from __future__ import annotations

from prefect import get_run_logger

from capo_core.preference_pairs import RANKED_STRATEGIES
from capo_core.release.risk import GROUP_SIZES
from flows.line import Line
from flows.plan import plan_run
from schemas.artifacts import ArtifactRef, SourceFile
from schemas.people import Scope
from tasks.analyze import (
    analyze_agreement,
    analyze_convergence,
    analyze_stability,
    analyze_style,
    measure_drift,
    read_needed_annotations,
)
from tasks.consent import find_refusing, leave_out
from tasks.corpus_history import append_batch, find_new_source, read_history
from tasks.ingest import ingest_annotations, read_batch_file, split_corpus, take_batch_in
from tasks.pairs import pair_responses, select_demonstrations
from tasks.people import find_naming_rule
from tasks.release import pseudonymise_corpus
from tasks.sources import find_source, release_secret, secret_id
from tasks.train import SHARED


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
    naming = find_naming_rule(corpus)
    annotations = ingest_annotations.submit(sources, annotators_source, corpus.format, line.config.task, naming)
    line.keep("annotations", annotations)
    line.versions = [line.keep("corpus", split_corpus.submit(annotations, corpus.max_items, line.config.splits))]
    for taken in read_history(corpus.name, corpus.version).batches:
        _take_in(line, taken.batch)
    if batch_path is not None:
        source = find_new_source(line.config.corpus, batch_path)
        if source is not None:
            if naming is not None:
                known = line.metadata_of(line.artifacts["corpus"])["annotators"]
                naming = naming.model_copy(update={"known": tuple(known)})
            batch = read_batch_file.submit(source, annotators_source, corpus.format, line.config.task, naming)
            _take_in(line, line.keep("batch", batch))
            append_batch(corpus.name, line.artifacts["batch"], source, version=len(line.versions))
    _respect_consent(line)
    metadata = line.metadata_of(line.versions[-1])
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


def _respect_consent(line: Line) -> None:
    """Leave those who do not consent out of what is analysed and of what models are made of.

    What the newest version states counts for all versions: a person's words leave older pairs too.
    """
    kept = line.artifacts
    if set(line.stages) - {"ingest"}:
        analysed = _leave_out(line, [kept["corpus"]], "analysis")[0]
        if analysed != kept["corpus"]:
            kept["corpus/analysis"] = analysed
    if set(line.stages) - {"ingest", "analyze", "watch_drift"}:
        line.versions = _leave_out(line, line.versions, "modelling")
        if line.versions[-1] != kept["corpus"]:
            kept["corpus/modelling"] = line.versions[-1]


def _leave_out(line: Line, versions: list[ArtifactRef], use: Scope) -> list[ArtifactRef]:
    """Return versions of the corpus without those who do not consent to a use, and say who they are."""
    refusing = find_refusing(line.artifacts["corpus"], use, require_consent=line.config.corpus.require_consent)
    for annotator, why in refusing.items():
        get_run_logger().warning("%s: left out of %s: %s", annotator, use, why)
    if refusing:
        line.n_left_out[f"annotators_left_out_of_{use}"] = len(refusing)
    if use == "modelling":
        line.refusing = refusing

    def restrict(version: ArtifactRef) -> ArtifactRef:
        present = [name for name in line.metadata_of(version)["annotators"] if name in refusing]
        return leave_out.submit(version, present, use).result() if present else version

    newest = restrict(versions[-1])
    # A version that would hold nobody to compare is as good as none: what stood at it is made from the newest.
    enough = [len(set(line.metadata_of(version)["annotators"]) - refusing.keys()) > 1 for version in versions]
    return [restrict(one) if is_enough else newest for one, is_enough in zip(versions, enough, strict=True)]


def _find_trainable(line: Line) -> list[str]:
    """Return the annotators with as many training annotations as an adapter asks for; name the others in the log."""
    config = line.config
    needed = config.batches.min_annotations
    if needed is None:
        convergence = analyze_convergence.submit(line.analysed, config.task, config.convergence)
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
    corpus, stability = line.analysed, config.stability
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
    """Measure how well each annotator whose words are released is told by their explanations, and nothing else."""
    corpus, stability = line.artifacts["source_corpus"], line.config.stability
    sizes = sorted({*stability.group_sizes, *GROUP_SIZES})
    if set(sizes) != set(stability.group_sizes):
        stability = stability.model_copy(update={"group_sizes": tuple(sizes)})
    line.keep("stability", analyze_stability.submit(corpus, line.encoder(), stability))


def select_released(line: Line) -> None:
    """Leave those who do not consent to a release out of what is released, and of its pairs who may not be modelled."""
    line.artifacts["source_corpus"] = _leave_out(line, [line.artifacts["corpus"]], "release")[0]
    line.versions = _leave_out(line, [line.artifacts["source_corpus"]], "modelling")


def pseudonymise(line: Line) -> None:
    """Rename the annotators; what comes after knows them by their pseudonyms only, and the newest version as the first.

    All of them count as trainable: pairs are made of everybody who may be modelled.
    """
    name, named_by = line.config.corpus.name, secret_id(release_secret())
    line.keep("corpus", pseudonymise_corpus.submit(line.artifacts["source_corpus"], name, named_by))
    renamed = pseudonymise_corpus.submit(line.versions[-1], name, named_by).result()
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
