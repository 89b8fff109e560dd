"""A small report's data, made by hand: two people, four items, one of each kind of figure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from capo_core.report import ReportData, StyleData
from capo_core.report.data import JUDGE_USAGE, TIMINGS
from schemas import frames
from schemas.config import ExperimentConfig

PEOPLE = ("ada", "ben")
ITEMS = tuple(f"{i:016x}" for i in range(4))


def frame(rows: list[tuple], columns: dict) -> pl.DataFrame:
    """Return rows in the order of `columns` as a frame of that kind."""
    return pl.DataFrame(rows, schema=columns, orient="row").cast(dict(columns))


def metric_row(
    method: str,
    metric: str,
    value: float | None,
    *,
    annotator: str = "all",
    decision: str | None = "sampled",
    condition: str | None = None,
    classifier: str | None = None,
    size: int | None = None,
    width: float = 0.05,
    n: int = 100,
    n_seeds: int = 1,
) -> tuple:
    """Return a METRICS row with an interval of `width` to either side."""
    ends = (None, None) if value is None else (value - width, value + width)
    return (method, annotator, decision, metric, condition, classifier, size, value, *ends, n, n_seeds)


def attribution_rows(annotator: str = "all") -> list[tuple]:
    """Return attribution for k = 5: human .93 (shuffled .27), SFT .71, CAPO .87; surface removed .86, .62, .78."""
    figures = [
        ("human", None, "raw", 0.93),
        ("human", None, "surface_normalised", 0.86),
        ("human", None, "shuffled", 0.27),
        ("human", None, "shuffled:surface_normalised", 0.26),
        ("sft", "sampled", "raw", 0.71),
        ("sft", "sampled", "surface_normalised", 0.62),
        ("capo", "sampled", "raw", 0.87),
        ("capo", "sampled", "surface_normalised", 0.78),
    ]
    keys = {"annotator": annotator, "classifier": "ngrams", "size": 5}
    return [metric_row(m, "attribution_accuracy", v, decision=d, condition=c, **keys) for m, d, c, v in figures]


def distance_rows(annotator: str = "all") -> list[tuple]:
    """Return told apart human .5, SFT .8, CAPO .9; style distance own .2, others .9, SFT .5, CAPO .7; length 1, 1.5."""
    apart = {"condition": "surface_normalised", "classifier": "ngrams", "annotator": annotator}
    plain = {"annotator": annotator}
    return [
        metric_row("human", "distinguishability", 0.5, decision=None, **apart),
        metric_row("sft", "distinguishability", 0.8, **apart),
        metric_row("capo", "distinguishability", 0.9, **apart),
        metric_row("human", "style_distance", 0.2, decision=None, condition="split_half", **plain),
        metric_row("human", "style_distance", 0.9, decision=None, condition="other_annotator", **plain),
        metric_row("sft", "style_distance", 0.5, **plain),
        metric_row("capo", "style_distance", 0.7, **plain),
        metric_row("sft", "length_ratio", 1.0, **plain),
        metric_row("capo", "length_ratio", 1.5, **plain),
    ]


def comparison_row(
    a: str, b: str, metric: str, difference: float | None, low: float | None, high: float | None, **keys: Any
) -> tuple:
    """Return a COMPARISONS row; keys: decision, condition, classifier, size, effect, p, holm."""
    unset = dict.fromkeys(("condition", "classifier", "size", "effect", "holm"))
    known = {"decision": "sampled", "p": 0.01, **unset, **keys}
    place = (known["decision"], metric, known["condition"], known["classifier"], known["size"])
    return (a, b, *place, difference, low, high, known["effect"], known["p"], known["holm"], 100, 1)


def attribution_comparison(
    difference: float | None, low: float | None, high: float | None, p: float | None, holm: float | None = None
) -> tuple:
    """Return CAPO minus SFT for the attribution of groups of 5, surface removed."""
    keys: dict[str, Any] = {"condition": "surface_normalised", "classifier": "ngrams", "size": 5, "p": p, "holm": holm}
    return comparison_row("capo", "sft", "attribution_accuracy", difference, low, high, **keys)


def apart_comparison(difference: float, low: float, high: float, p: float = 0.01) -> tuple:
    """Return CAPO minus SFT in how well the text is told from the person's, surface removed."""
    keys: dict[str, Any] = {"condition": "surface_normalised", "classifier": "ngrams", "p": p}
    return comparison_row("capo", "sft", "distinguishability", difference, low, high, **keys)


def make_corpus(people: tuple[str, ...] = PEOPLE, explanation: str = "Because it says so.") -> pl.DataFrame:
    """Return four items, two of them test, annotated by everybody."""
    rows = []
    for i, item_id in enumerate(ITEMS):
        split = ("train", "validation", "test", "test")[i]
        for person in people:
            texts = (f"Context {i}", f"Statement {i}")
            rows.append((item_id, f"c{i}", *texts, person, "yes", explanation, "f.csv", i + 1, str(i), "{}", split))
    return frame(rows, frames.CORPUS)


def make_generations(people: tuple[str, ...] = PEOPLE, explanation: str = "It follows.") -> pl.DataFrame:
    """Return SFT's and CAPO's responses to the test items for everybody, and zero-shot's, one unreadable."""
    rows = []
    for item_id in ITEMS[2:]:
        for method in ("sft", "capo"):
            for person in people:
                label = "yes" if method == "sft" else "no"
                text = f"Label: {label}\nExplanation: {explanation}"
                rows.append(
                    (method, 13, person, item_id, "sampled", text, label, explanation, "ok", None, 50, 9, False)
                )
    zero = ("zero_shot", 13, None)
    rows.append((*zero, ITEMS[2], "sampled", "I cannot say", None, None, "no_label", None, 50, 96, True))
    rows.append((*zero, ITEMS[3], "sampled", "Label: no\nExplanation: No.", "no", "No.", "ok", None, 50, 9, False))
    return frame(rows, frames.GENERATIONS)


def make_config(**changes: Any) -> ExperimentConfig:
    """Return a configuration of a nominal task, changed at the top level."""
    return ExperimentConfig.model_validate(
        {
            "name": "sample",
            "task": {
                "name": "nli",
                "question": "Does the statement follow?",
                "text_a_name": "Context",
                "text_b_name": "Statement",
                "labels": {"type": "nominal", "names": ["yes", "no"]},
            },
            "corpus": {"name": "sample", "format": "table", "paths": ["f.csv"]},
            "model": {"id": "bundled:smollm2-135m-instruct"},
            **changes,
        }
    )


def make_stability() -> pl.DataFrame:
    """Return a curve of two sizes with its floor, and the same with the label never seen, for all labels and one."""
    rows = []
    for condition, stratum, size, accuracy in (
        ("human", None, 1, 0.7),
        ("human", None, 5, 0.9),
        ("shuffled", None, 1, 0.5),
        ("shuffled", None, 5, 0.52),
        ("label_left_out", None, 5, 0.8),
        ("label_left_out", "yes", 5, 0.75),
    ):
        p = None if condition == "shuffled" else 0.004
        p_retrained = 0.02 if condition == "human" else None
        figures = (accuracy, accuracy - 0.1, accuracy + 0.05, p, p_retrained, 40, 4, 3, 0.5)
        rows.append(("none", "surface", "ngrams", condition, stratum, size, *figures))
    return frame(rows, frames.STABILITY)


def make_stability_annotators(people: tuple[str, ...] = PEOPLE) -> pl.DataFrame:
    """Return each person's accuracy for groups of 5."""
    rows = [("none", "surface", "ngrams", person, 5, 0.9, 0.8, 0.95, 4) for person in people]
    return frame(rows, frames.STABILITY_BY_ANNOTATOR)


def make_style(people: tuple[str, ...] = PEOPLE, text: str = "Because.") -> StyleData:
    """Return two features, of which words differ by annotator and commas do not, and each person's profile."""
    features = [
        ("words", "words", "Number of words.", 0.4, 0.2, 0.1, 0.3, 0.35, 0.0001, 0.0002, 0.95, 8, 10_000),
        ("comma_rate", "share", "Commas.", 0.05, 0.2, 0.0, 0.75, 0.01, 0.4, 0.4, 0.3, 8, 10_000),
    ]
    kinds = ("split_half", "batch_to_batch")
    own = [
        row
        for person in people
        for row in (
            (person, "words", "words", 12.0, 6.0, 1.2, 0.9, 1.5, 0.001),
            (person, "comma_rate", "share", 0.1, 0.1, 0.0, -0.2, 0.2, 1.0),
        )
    ]
    return StyleData(
        features=frame(features, frames.FEATURE_TESTS),
        reliability=frame([(p, k, 0.9, 0.8, 0.95, 0.01, 4, 100) for p in people for k in kinds], frames.RELIABILITY),
        annotators=frame(own, frames.STYLE_FEATURES),
        words=frame([(person, f"{text} word", 4.5, 20, 1) for person in people], frames.STYLE_WORDS),
        examples=frame([(person, ITEMS[0], "yes", text, -0.1) for person in people], frames.STYLE_EXAMPLES),
    )


def make_convergence() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return α at two sizes, with its fit and advice."""
    rows = [
        ("krippendorff_alpha_nominal", "items", 10, 0.4, 0.1, 0.2, 0.6, 20, 0.4, 0.4),
        ("krippendorff_alpha_nominal", "items", 40, 0.45, None, None, None, 1, 0.45, 0.2),
    ]
    fit = ("krippendorff_alpha_nominal", "items", "mean = .5 - .3 n^-.5", 0.5, 0.01, 40, 0.2, 0.1, 160)
    advice = "about 120 more annotations per annotator would bring the interval under .10"
    return frame(rows, frames.CONVERGENCE), frame([(*fit, advice)], frames.CONVERGENCE_FITS)


def make_cross_attribution(people: tuple[str, ...] = PEOPLE) -> pl.DataFrame:
    """Return CAPO's matrix: .9 on the diagonal."""
    keys = ("capo", "sampled", "surface_normalised", "ngrams", 5)
    share = 0.1 / (len(people) - 1)
    rows = [(*keys, a, b, 0.9 if a == b else share, 0.8 if a == b else share, 1) for a in people for b in people]
    return frame(rows, frames.CROSS_ATTRIBUTION)


def make_training_log() -> pl.DataFrame:
    """Return three steps of loss on training items and one on validation items."""
    losses = [(step, step / 3, "train", "loss", 2.0 - 0.5 * step) for step in (1, 2, 3)]
    return frame([*losses, (3, 1.0, "validation", "loss", 1.25)], frames.TRAINING_LOG)


def make_data(**changes: Any) -> ReportData:
    """Return a small report's data, changed as given."""
    data = ReportData(
        config=make_config(),
        annotations_counts={"rows_in": 9, "rows_accepted": 8, "rows_quarantined": 1, "stray_white_space": 3},
        quarantine=frame(
            [("f.csv", 9, "4", "ben", "label", "unknown_label", "label 'perhaps' is not yes or no", "{}")],
            frames.QUARANTINE,
        ),
        corpus=make_corpus(),
        agreement=frame(
            [
                ("krippendorff_alpha_nominal", None, None, 0.41, 0.3, 0.5, 4, 8),
                ("cohen_kappa", "ada", "ben", None, None, None, 4, 8),
            ],
            frames.AGREEMENT,
        ),
        item_labels=frame(
            [(ITEMS[0], 2, [{"label": "yes", "n": 1}, {"label": "no", "n": 1}], 1.0)], frames.ITEM_LABELS
        ),
        subjectivity=frame([("latent_pattern", "manifest", "α is .41.")], frames.SUBJECTIVITY),
        convergence=make_convergence()[0],
        convergence_fits=make_convergence()[1],
        stability=make_stability(),
        stability_annotators=make_stability_annotators(),
        style=make_style(),
        training_logs=[("sft", "ada", 13, make_training_log()), ("sft", "ben", 13, make_training_log())],
        pair_counts={"pairs by relation": {"same_label": 5, "different_label": 7}},
        metrics=frame(
            [row for who in ("all", *PEOPLE) for row in (*attribution_rows(who), *distance_rows(who))], frames.METRICS
        ),
        comparisons=frame([attribution_comparison(0.16, 0.08, 0.24, 0.003)], frames.COMPARISONS),
        style_distances=frame([("capo", "sampled", "ada", "words", 0.7, 0.9, 0.2, 2, 2)], frames.STYLE_DISTANCES),
        cross_attribution=make_cross_attribution(),
        exclusions=frame([("zero_shot", "sampled", "ada", "too few readable", 0.25, 0.5)], frames.EXCLUSIONS),
        retention=frame([("sft", "ada", 13, "neutral_perplexity", 20.0, 22.0, 1.1, 1.05, 1.15, 24)], frames.RETENTION),
        value_profiles=frame([("ada", 13, "Short and plain.", 50, 900, 20, True)], frames.VALUE_PROFILES),
        judge_metrics=None,
        generations=make_generations(),
        ratings_metrics=None,
        provenance={
            "artifacts": {"corpus": "capo:corpus/" + "a" * 64 + "?rows=8&version=1"},
            "versions": {"polars": "2.1.0"},
            "capo_version": "0.1.0",
            "command": "capo run sample.yaml",
            "created_at": "2026-01-02 03:04 UTC",
        },
    )
    return replace(data, **changes)


def empty_data() -> ReportData:
    """Return data in which nothing was measured."""
    return make_data(
        annotations_counts={},
        quarantine=frames.empty(frames.QUARANTINE),
        agreement=frames.empty(frames.AGREEMENT),
        item_labels=frames.empty(frames.ITEM_LABELS),
        subjectivity=frames.empty(frames.SUBJECTIVITY),
        convergence=frames.empty(frames.CONVERGENCE),
        convergence_fits=frames.empty(frames.CONVERGENCE_FITS),
        stability=frames.empty(frames.STABILITY),
        stability_annotators=frames.empty(frames.STABILITY_BY_ANNOTATOR),
        style=StyleData(
            frames.empty(frames.FEATURE_TESTS),
            frames.empty(frames.RELIABILITY),
            frames.empty(frames.STYLE_FEATURES),
            frames.empty(frames.STYLE_WORDS),
            frames.empty(frames.STYLE_EXAMPLES),
        ),
        training_logs=[],
        pair_counts={},
        metrics=frames.empty(frames.METRICS),
        comparisons=frames.empty(frames.COMPARISONS),
        style_distances=frames.empty(frames.STYLE_DISTANCES),
        cross_attribution=frames.empty(frames.CROSS_ATTRIBUTION),
        exclusions=frames.empty(frames.EXCLUSIONS),
        retention=frames.empty(frames.RETENTION),
        value_profiles=frames.empty(frames.VALUE_PROFILES),
        generations=frames.empty(frames.GENERATIONS),
        provenance={},
    )


JUDGES = ("local:tiny", "openai:large")


def judge_rows(judge: str, ceilings: dict[str, float], *, informative: dict[str, float | None]) -> list[tuple]:
    """Return what a judge makes of people's own text by protocol prefix, groups of 3, and SFT .40 and CAPO .60."""
    metrics = {
        "judge": "judge_accuracy",
        "judge_pairwise": "judge_pairwise_accuracy",
        "judge_same_author": "judge_same_author_balanced_accuracy",
    }
    rows = []
    for prefix, ceiling in ceilings.items():
        keys: dict[str, Any] = {"decision": None, "condition": "raw", "classifier": judge, "size": 3}
        rows.append(metric_row("human", metrics[prefix], ceiling, **keys))
        rows.append(metric_row("human", f"{prefix}_chance", 0.5, **keys))
        rows.append(metric_row("human", f"{prefix}_informative", informative[prefix], width=0, **keys))
        rows.append(metric_row("human", f"{prefix}_self_consistency", 0.75, **keys))
        if prefix == "judge":
            rows.append(metric_row("human", "judge_accuracy", 0.48, **{**keys, "condition": "shuffled"}))
            for method, value in (("sft", 0.4), ("capo", 0.6)):
                rows.append(metric_row(method, "judge_accuracy", value, **{**keys, "decision": "sampled"}))
    return rows


def make_judge_metrics() -> pl.DataFrame:
    """Return a judge at chance, and one that tells people apart by attribution (.80) but not pairwise (.51)."""
    small = judge_rows(JUDGES[0], {"judge": 0.52}, informative={"judge": 0.0})
    ceilings = {"judge": 0.8, "judge_pairwise": 0.51}
    large = judge_rows(JUDGES[1], ceilings, informative={"judge": 1.0, "judge_pairwise": 0.0})
    return frame([*small, *large], frames.METRICS)


def make_judge_comparisons() -> pl.DataFrame:
    """Return CAPO minus SFT by both judges: .2 in [.1, .3] by attribution, and by the larger pairwise."""
    keys: dict[str, Any] = {"condition": "raw", "size": 3}
    rows = [
        comparison_row("capo", "sft", "judge_accuracy", 0.2, 0.1, 0.3, classifier=JUDGES[0], **keys),
        comparison_row("capo", "sft", "judge_accuracy", 0.2, 0.1, 0.3, classifier=JUDGES[1], **keys),
        comparison_row("capo", "sft", "judge_win_rate", 0.2, 0.1, 0.3, classifier=JUDGES[1], **keys),
    ]
    return frame(rows, frames.COMPARISONS)


def make_raters() -> pl.DataFrame:
    """Return a rater who counts and one who failed the attention checks."""
    return frame(
        [
            ("rater 1", 24, 4, 1.0, 4, 0.75, 21.5, 0.6, False, None),
            ("rater 2", 24, 4, 0.25, 4, 0.5, 3.0, 0.45, True, "1 of 4 attention checks passed, 3 needed"),
        ],
        frames.RATERS,
    )


def make_timings() -> pl.DataFrame:
    """Return two SFT trainings of 90 and 30 seconds and an evaluation of 3,700."""
    rows = [
        ("train-sft", "train-sft ada seed 13", 90.0),
        ("train-sft", "train-sft ben seed 13", 30.0),
        ("evaluate", "evaluate", 3700.0),
    ]
    return frame(rows, TIMINGS)


def make_usage() -> pl.DataFrame:
    """Return what two judges used: the local one counts no answer tokens."""
    rows = [
        (JUDGES[0], "ok", 40, 4000, None),
        (JUDGES[1], "ok", 30, 1_000_000, 500_000),
        (JUDGES[1], "failed", 2, 0, 0),
        (JUDGES[1], "not_asked", 8, None, None),
    ]
    return frame(rows, JUDGE_USAGE)
