"""What a run prints at its end: the table of results and where to look further."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from capo_core.redaction import hide_credentials
from capo_core.report.opinions import PROTOCOLS
from capo_core.report.terms import CLASSIFIER_TITLES, P_VALUE_MEANINGS, P_VALUE_TITLES
from capo_core.results import AGREEMENT, IMITATION, STYLE_DISTANCE, Figure, check_bars, split_arms
from deployments.local_stack.stack import Endpoints
from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home
from tasks.tracking import tracking_uri

_METHODS = {
    "human": "human text",
    "majority": "commonest label",
    "zero_shot": "zero-shot",
    "history": "history",
    "profile": "profile",
    "sft": "SFT",
    "capo": "CAPO",
}
_CLASSIFIER = "ngrams"
NOT_MEASURED = "–"

_ARM_FIGURES = {
    "Label\nconstrained": AGREEMENT["constrained"],
    "Attributed\nk=5": IMITATION,
    "Told apart": Figure("", "distinguishability", "sampled", "surface_normalised", _CLASSIFIER),
    "Style\ndistance": STYLE_DISTANCE,
    "Length\nratio": Figure("", "length_ratio"),
}
"""What is printed of every arm of an experiment."""

_REDUCTIONS = {
    "none": "whole text",
    "shared_words_masked": "shared words masked",
    "content_words_masked": "function words only",
    "embedding_minus_item_mean": "minus item mean",
    "embedding_input_residual": "residual on input",
}
_ASKED = {"judge": "who wrote it", "judge_pairwise": "which is closer", "judge_same_author": "same author"}
"""What a judge is asked, by the prefix of its metrics."""
_WORTHS = {1.0: "informative", 0.0: "not informative", None: "unknown"}
_SURFACES = {"none": "as written", "surface": "removed"}


def print_results(console: Console, evaluation: ArtifactRef) -> None:
    """Print the main figures by method, over all annotators, each with its interval; attribution beside distance."""
    metrics = ArtifactStore().read_table(evaluation).filter(pl.col("annotator_id") == "all")
    size = _choose_size(metrics)
    chance = 1 / max(1, _count_annotators(evaluation))
    n_seeds = metrics["n_seeds"].max()
    table = Table(
        title=f"Mean over annotators [95% interval]; seeds: {n_seeds}; chance in attribution: {_shorten(chance)}",
        caption="attributed, told apart, length: sampled text; surface: without case, punctuation and spacing;\n"
        "told apart: from the person's own text, .5 is perfect, human text is two halves of his own",
        padding=(0, 1, 0, 0),
    )
    table.add_column("Method", no_wrap=True)
    columns = _result_columns(size)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for method, name in _METHODS.items():
        rows = metrics.filter(pl.col("method") == method)
        if not rows.is_empty():
            table.add_row(name, *(_format_figure(rows, wanted) for _, wanted in columns))
    console.print(table)


def _result_columns(size: int | None) -> list[tuple[str, dict[str, str | int | None]]]:
    """Return the titles of the results' columns with the rows of METRICS that stand in them."""
    plain = {"condition": None, "classifier": None, "group_size": None}
    sampled = {"decision": "sampled", "classifier": _CLASSIFIER}
    imitation = {"metric": "attribution_accuracy", **sampled, "group_size": size}
    apart = {"metric": "distinguishability", **sampled, "group_size": None}
    decisions = ("constrained", "greedy", "sampled")
    return [
        *(
            (f"{'Label' if i == 0 else ''}\n{decision}", {"metric": "label_agreement", "decision": decision, **plain})
            for i, decision in enumerate(decisions)
        ),
        (f"Attributed k={size}\nraw", {**imitation, "condition": "raw"}),
        ("\nsurface", {**imitation, "condition": "surface_normalised"}),
        ("Told apart\nsurface", {**apart, "condition": "surface_normalised"}),
        ("Length\nratio", {"metric": "length_ratio", "decision": "sampled", **plain}),
    ]


def _choose_size(metrics: pl.DataFrame) -> int | None:
    """Return the group size nearest to 5 that was measured."""
    sizes = metrics.filter((pl.col("metric") == "attribution_accuracy") & pl.col("value").is_not_null())["group_size"]
    return min(sizes.unique().to_list(), key=lambda size: (abs(size - 5), size), default=None)


def _count_annotators(evaluation: ArtifactRef) -> int:
    annotators = ArtifactStore().read_table(evaluation)["annotator_id"].unique().to_list()
    return len([name for name in annotators if name != "all"])


def _format_figure(rows: pl.DataFrame, wanted: dict[str, str | int | None]) -> str:
    """Return `.71 [.64, .78]`, or a dash where the figure does not exist or was not measured."""
    for column, value in wanted.items():
        # Rows about people have no decision: theirs is neither sampled nor constrained.
        rows = rows.filter(pl.col(column).eq_missing(value) | (pl.col(column).is_null() & (column == "decision")))
    if rows.is_empty():
        return NOT_MEASURED
    return _format_estimate(*rows.select("value", "ci_low", "ci_high").row(0))


def _format_estimate(value: float | None, low: float | None, high: float | None) -> str:
    """Return `.71 [.64, .78]` without leading zeros, so that the table fits; a dash where nothing was measured."""
    if value is None:
        return NOT_MEASURED
    interval = "" if low is None or high is None else f" [{_shorten(low)}, {_shorten(high)}]"
    return f"{_shorten(value)}{interval}"


def _shorten(value: float) -> str:
    """Return a number in two decimals, `.71` and `-.05` where it is below 1."""
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def print_judges(console: Console, verdicts: ArtifactRef) -> None:
    """Print what every judge makes of people's own text, which says what its verdicts on models are worth."""
    metrics = ArtifactStore().read_table(verdicts, "metrics.parquet").filter(annotator_id="all", method="human")
    table = Table(
        title="Judges on people's own text [95% interval]",
        caption="accuracy of attribution and pairwise choice, balanced accuracy of same or different author;\n"
        "informative: the interval lies above chance; unknown: too few groups were answered to tell",
        padding=(0, 1, 0, 0),
    )
    table.add_column("Judge")
    for title in ("Asked", "Surface", "Accuracy", "Chance", "Ties", "Readable", "Worth"):
        table.add_column(title, justify="left" if title in ("Asked", "Surface", "Worth") else "right", no_wrap=True)
    for judge in sorted(metrics["classifier"].unique().to_list()):
        for protocol in PROTOCOLS:
            prefix = protocol.prefix
            for condition, surface in (("raw", "as written"), ("surface_normalised", "removed")):
                rows = metrics.filter(classifier=judge, condition=condition)
                found = {row["metric"]: row for row in rows.iter_rows(named=True)}
                if protocol.ceiling not in found:
                    continue
                accuracy = found[protocol.ceiling]
                rest = [found[f"{prefix}_{name}"] for name in ("chance", "tie_rate", "parse_rate")]
                table.add_row(
                    judge, _ASKED[prefix], surface,
                    _format_estimate(accuracy["value"], accuracy["ci_low"], accuracy["ci_high"]),
                    *(_format_estimate(row["value"], None, None) for row in rest),
                    _WORTHS[found[f"{prefix}_informative"]["value"]],
                )  # fmt: skip
    console.print(table)


def print_stability(console: Console, stability: ArtifactRef) -> None:
    """Print how well held-out human text is attributed to its author, by reduction, with the shuffled floor."""
    table = ArtifactStore().read_table(stability).filter(pl.col("stratum").is_null())
    human, shuffled = (table.filter(pl.col("condition") == name) for name in ("human", "shuffled"))
    sizes = sorted(human["group_size"].unique().to_list())
    chance = human["chance"].min()
    shown = Table(
        title="Held-out human explanations attributed to their authors, groups of k [95% interval]",
        caption="\n".join(
            (
                f"chance: {_shorten(chance) if isinstance(chance, float) else NOT_MEASURED}; "
                "p: authors permuted within items, for all k",
                *(f"{title}: {P_VALUE_MEANINGS[column]}" for column, title in P_VALUE_TITLES.items()),
            )
        ),
        padding=(0, 1, 0, 0),
    )
    for title in ("Text", "Surface", "Classifier"):
        shown.add_column(title, no_wrap=True)
    for size in sizes:
        shown.add_column(f"k={size}", justify="right", no_wrap=True)
    for title in P_VALUE_TITLES.values():
        shown.add_column(title, justify="right", max_width=len("retrained"))
    for variant in _list_variants(human):
        own = human.filter(_is_variant(variant))
        p_values = (_format_p_value(own["p_value"], NOT_MEASURED), _format_p_value(own["p_value_retrained"]))
        shown.add_row(*_name_variant(variant), *(_format_size(own, size) for size in sizes), *p_values)
    shown.add_section()
    shown.add_row("annotators shuffled", "any", "any", *(_format_range(shuffled, size) for size in sizes), "", "")
    console.print(shown)


def _list_variants(table: pl.DataFrame) -> list[tuple[str, str, str]]:
    """Return reduction, normalisation and classifier of each row of the table of stability, in order."""
    known = [list(names) for names in (_REDUCTIONS, _SURFACES, CLASSIFIER_TITLES)]

    def rank(variant: tuple[str, ...]) -> list[tuple[int, str]]:
        return [(k.index(n) if n in k else len(k), n) for k, n in zip(known, variant, strict=True)]

    return sorted(table.select("reduction", "normalisation", "classifier").unique().rows(), key=rank)


def _is_variant(variant: tuple[str, str, str]) -> pl.Expr:
    columns = ("reduction", "normalisation", "classifier")
    return pl.all_horizontal(pl.col(column) == value for column, value in zip(columns, variant, strict=True))


def _name_variant(variant: tuple[str, str, str]) -> list[str]:
    titles = (_REDUCTIONS, _SURFACES, CLASSIFIER_TITLES)
    return [names.get(name, name) for names, name in zip(titles, variant, strict=True)]


def _format_size(rows: pl.DataFrame, size: int) -> str:
    own = rows.filter(pl.col("group_size") == size)
    return NOT_MEASURED if own.is_empty() else _format_estimate(*own.select("accuracy", "ci_low", "ci_high").row(0))


def _format_range(rows: pl.DataFrame, size: int) -> str:
    """Return the least and the greatest floor under any reduction."""
    own = rows.filter(pl.col("group_size") == size)["accuracy"].drop_nulls().sort()
    return NOT_MEASURED if own.is_empty() else f"{_shorten(own[0])} to {_shorten(own[-1])}"


def _format_p_value(values: pl.Series, absent: str = "not computed") -> str:
    """Return the p value that all group sizes of a variant share."""
    tested = values.drop_nulls()
    return absent if tested.is_empty() else _format_p(tested[0])


def _format_p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}".replace("0.", ".", 1)


def print_experiment(console: Console, experiment: ArtifactRef) -> None:
    """Print an experiment's arms: imitation beside its distance by method, and which bars set beforehand are met."""
    arms = split_arms(ArtifactStore().read_table(experiment))
    table = Table(
        title="Mean over annotators [95% interval]",
        caption="sampled text, surface removed; told apart: from the person's own text, .5 is perfect",
        padding=(0, 1, 0, 0),
    )
    for title in ("Corpus, layout, pairs", "Method"):
        table.add_column(title)
    for title in _ARM_FIGURES:
        table.add_column(title, justify="right", no_wrap=True)
    for arm in arms:
        name = ", ".join(arm.identity[part] for part in ("corpus", "layout", "pair_strategy"))
        for method in (name for name in _METHODS if name in arm.methods):
            figures = [_format_row(arm.find(figure, method)) for figure in _ARM_FIGURES.values()]
            table.add_row(name, _METHODS[method], *figures)
        table.add_section()
    console.print(table)
    for arm in arms:
        for check in check_bars(arm):
            where = ", ".join(arm.identity.values())
            text = f"{where}: {check.bar}: {check.found}: {check.verdict}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def _format_row(row: dict | None) -> str:
    return NOT_MEASURED if row is None else _format_estimate(row["value"], row["ci_low"], row["ci_high"])


def print_stack(console: Console, endpoints: Endpoints, states: Mapping[str, str]) -> None:
    """Print what runs, where to open it, and what to set for Prefect's and MLflow's own commands."""
    for program, state in states.items():
        console.print(f"{program}: [{'green' if state in ('RUNNING', 'STARTING') else 'red'}]{state.lower()}[/]")
    console.print(f"[bold]Prefect[/bold]: {endpoints.prefect_api_url.removesuffix('/api')}", highlight=False)
    console.print(f"[bold]MLflow[/bold]: {endpoints.mlflow_tracking_uri}", highlight=False)
    console.print("capo's commands use these servers by themselves; for prefect and mlflow:", highlight=False)
    for name, value in endpoints.environment.items():
        console.print(f"    export {name}={value}", highlight=False, soft_wrap=True)


def print_places(console: Console, name: str) -> None:
    """Print where the report and the two user interfaces are, with the commands that open them."""
    binaries = Path(sys.executable).parent
    report = capo_home() / "reports" / f"{name}.html"
    lines = []
    if report.exists():
        lines.append(("Report", str(report), "open it in a browser"))
    uri = hide_credentials(tracking_uri())
    how = uri if uri.startswith("http") else f"{binaries}/mlflow ui --workers 1 --backend-store-uri {uri}"
    lines.append(("MLflow", f"experiment {name}", how))
    if api_url := os.environ.get("PREFECT_API_URL"):
        lines.append(("Prefect", "runs of this flow", hide_credentials(api_url.removesuffix("/api"))))
    else:
        home = os.environ.get("PREFECT_HOME")
        prefix = f"PREFECT_HOME={home} " if home else ""
        lines.append(("Prefect", "runs of this flow", f"{prefix}{binaries}/prefect server start"))
    for title, what, how in lines:
        console.print(f"[bold]{title}[/bold]: {what}\n    {how}", soft_wrap=True, highlight=False)
