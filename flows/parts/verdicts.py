"""Whether they are imitated: evaluation, judges, raters, and the report."""

from __future__ import annotations

from capo_core.judging.workload import PAIRS, count_questions, narrow_judge
from flows.line import Line
from schemas.judge import LocalJudge
from tasks.evaluate import evaluate_methods
from tasks.human_validation import export_validation, find_ratings, import_ratings
from tasks.judge import judge_method, judge_pairs, summarise_judges
from tasks.report import write_report
from tasks.sources import find_source, secret_id, validation_secret


def evaluate(line: Line) -> None:
    """Hold all generations against the people."""
    config = line.config
    evaluation = evaluate_methods.submit(
        line.analysed, line.all_of("generations"), line.encoder(), config.task, config.evaluation
    )
    line.keep("evaluation", evaluation)


def judge(line: Line) -> None:
    """Ask every judge about every method's groups, the people's own among them, and about pairs; then sum up."""
    config, asked, corpus = line.config, line.config.judge, line.versions[-1]
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
    sheets, key = export_validation.submit(line.analysed, generations, config.task, asked, consent, signed_by).result()
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
        line.config, kept["annotations"], line.analysed, kept["agreement"], kept["convergence"], kept["stability"],
        kept["style"], line.all_of("preferences"), line.all_of("adapters"), line.all_of("retention"),
        line.all_of("profiles"), line.all_of("generations"), kept["evaluation"], line.all_of("verdicts"),
        kept.get("ratings"), line.n_left_out,
    )  # fmt: skip
    line.keep("report", page)
