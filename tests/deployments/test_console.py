"""What the command line prints of a run's results and of stability: every figure with interval, within 140 columns."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from judging_material import ANNOTATORS, ask_made_corpus, know_authors, say_first
from rich.console import Console

from capo_core.judging.figures import summarise_verdicts
from capo_core.results import ArmResult, results_frame
from deployments.console import print_experiment, print_judges, print_results, print_stability
from schemas.artifacts import ArtifactRef
from schemas.frames import COMPARISONS, METRICS, STABILITY, TABLES, empty
from schemas.judge import JudgeConfig
from tasks.storage.artifact_store import ArtifactStore

WIDTH = 140
METHODS = ("zero_shot", "history", "profile", "sft", "capo")


def write_artifact(kind: str, table: pl.DataFrame) -> ArtifactRef:
    """Store a main table with empty tables beside it."""
    tables = {name: empty(columns) for name, columns in TABLES[kind].items()}
    return ArtifactStore().write(kind, {**tables, "data.parquet": table})  # pyright: ignore[reportArgumentType]


def metric_rows(method: str, decision: str | None, value: float) -> list[tuple]:
    """Return one method's rows of every printed figure, and of one that is not printed."""
    keys = [
        ("label_agreement", None, None, None),
        ("attribution_accuracy", "raw", "ngrams", 5),
        ("attribution_accuracy", "surface_normalised", "ngrams", 5),
        ("attribution_accuracy", "raw", "embeddings", 5),
        ("distinguishability", "surface_normalised", "ngrams", None),
        ("length_ratio", None, None, None),
    ]
    return [
        (method, person, decision, *key, shown, shown - 0.05, shown + 0.05, 24, 3)
        for key in keys
        for shown in [10 * value if key[0] == "length_ratio" else value]  # the widest column
        for person in ("all", "ada", "ben")
    ]


def printed(print_table: object, ref: ArtifactRef) -> list[str]:
    """Return the printed lines."""
    console = Console(width=WIDTH, record=True, quiet=False)
    with console.capture() as capture:
        print_table(console, ref)  # pyright: ignore
    return capture.get().splitlines()


def test_results_show_every_method_and_decision_within_the_width(home: Path) -> None:
    rows = [row for m in METHODS for d in ("sampled", "greedy", "constrained") for row in metric_rows(m, d, 0.95)]
    rows += metric_rows("human", None, 0.9)
    lines = printed(print_results, write_artifact("evaluation", pl.DataFrame(rows, schema=METRICS, orient="row")))
    assert max(map(len, lines)) <= WIDTH
    assert not [line for line in lines if "…" in line]
    text = "\n".join(lines)
    for word in ("constrained", "greedy", "sampled", "Attributed k=5", "surface", "Told apart", "Length", "profile"):
        assert word in text
    (human,) = [line for line in lines if "human text " in line and "│" in line]
    # Three decisions, two attributions and told apart; people know no decision, so their label stands in all three.
    assert human.count(".90 [.85, .95]") == 6


def test_what_was_not_measured_is_a_dash(home: Path) -> None:
    rows = [(*row[:7], None, None, None, 0, 0) for row in metric_rows("capo", "sampled", 0.5)]
    lines = printed(print_results, write_artifact("evaluation", pl.DataFrame(rows, schema=METRICS, orient="row")))
    (capo,) = [line for line in lines if "CAPO" in line]
    assert capo.count("–") == 7


def stability_row(
    condition: str, size: int, accuracy: float, p: float | None, p_retrained: float | None, stratum: str | None = None
) -> tuple:
    """Return one row of the table of stability: by n-grams, of text as written."""
    key = ("none", "none", "ngrams", condition, stratum, size)
    return (*key, accuracy, accuracy - 0.1, accuracy + 0.05, p, p_retrained, 40, 30, 3, 0.25)


def store_stability(rows: list[tuple]) -> ArtifactRef:
    return write_artifact("stability", pl.DataFrame(rows, schema=STABILITY, orient="row"))


def test_stability_has_sizes_as_columns_and_the_floor_below(home: Path) -> None:
    rows = [
        stability_row("human", 1, 0.7, 0.0001, 0.012),
        stability_row("human", 5, 0.9, 0.0001, 0.012),
        stability_row("human", 5, 0.1, 0.5, None, "yes"),
        stability_row("shuffled", 1, 0.25, None, None),
        stability_row("shuffled", 5, 0.27, None, None),
    ]
    lines = printed(print_stability, store_stability(rows))
    assert max(map(len, lines)) <= WIDTH
    (human,) = [line for line in lines if "whole text" in line]
    # One label's figure (.10) is none of all together. The first p keeps the verdicts, the second is retrained.
    assert [cell.strip() for cell in human.strip("│").split("│")] == [
        "whole text", "as written", "n-grams", ".70 [.60, .75]", ".90 [.80, .95]", "<.001", ".012",
    ]  # fmt: skip
    (floor,) = [line for line in lines if "annotators shuffled" in line]
    assert ".25 to .25" in floor
    assert ".27 to .27" in floor


def test_stability_fits_the_width_with_the_longest_cells_and_explains_both_tests(home: Path) -> None:
    # "1.00 [0.90, 1.05]" is no accuracy, but as wide as one can be.
    rows = [stability_row("human", size, 1.0, 0.0001, None) for size in (1, 5, 10, 20)]
    rows = [("shared_words_masked", "surface", "embeddings", *row[3:]) for row in rows]
    lines = printed(print_stability, store_stability(rows))
    assert max(map(len, lines)) <= WIDTH
    assert not [line for line in lines if "…" in line]
    first, second = [line.strip("│").split("│")[-1].strip() for line in lines if line.startswith("│")][:2]
    assert (first, second) == ("not", "computed")
    text = " ".join(line.strip() for line in lines)
    assert "p, verdicts kept: the verdicts of the classifier shown stay" in text
    assert "p, retrained: a ridge classifier learns anew" in text


def test_experiment_has_a_row_per_arm_and_method_and_every_bar(home: Path) -> None:
    rows = [row for method in ("sft", "capo") for row in metric_rows(method, "sampled", 0.25)]
    metrics = pl.DataFrame(rows, schema=METRICS, orient="row")
    arms = [
        ArmResult(
            {"corpus": "varierr", "model": "smollm2-135m", "layout": layout, "pair_strategy": "different_label"},
            metrics,
            empty(COMPARISONS),
            "capo:evaluation/x",
        )
        for layout in ("per_annotator", "shared")
    ]
    lines = printed(print_experiment, write_artifact("experiment", results_frame(arms)))
    assert max(len(line) for line in lines if "│" in line) <= WIDTH
    capo = [line for line in lines if "│CAPO" in line.replace(" ", "")]
    # Attributed and told apart are .25; length is 2.5; label was not decided by constraint, style not measured.
    assert [line.count(".25 [.20, .30]") for line in capo] == [2, 2]
    # Without a comparison, whether CAPO gains is not known.
    assert len([line for line in lines if "difference not measured: not measured" in line]) == 2


def test_judges_are_printed_with_what_they_are_worth(home: Path) -> None:
    config = JudgeConfig(methods=("human", "sft"), group_size=1, n_references=1, n_groups=2)
    found = [ask_made_corpus(script, config, name=name) for name, script in (("k", know_authors), ("f", say_first))]
    verdicts = pl.concat(found)
    metrics = summarise_verdicts(verdicts, config, ANNOTATORS, seeds=(1, 2))
    tables = {name: empty(columns) for name, columns in TABLES["verdicts"].items()}
    ref = ArtifactStore().write("verdicts", tables | {"data.parquet": verdicts, "metrics.parquet": metrics})
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed(print_judges, ref) if "│" in line]
    # Two judges, three protocols, with and without surface.
    assert len(lines) == 12
    assert ["k", "who wrote it", "as written", "1.00 [1.00, 1.00]", ".33", ".00", "1.00", "informative"] in lines
    assert ["f", "who wrote it", "removed", ".33 [.33, .33]", ".33", "1.00", "1.00", "not informative"] in lines
    assert ["f", "same author", "as written", ".50 [.50, .50]", ".50", "1.00", "1.00", "not informative"] in lines
