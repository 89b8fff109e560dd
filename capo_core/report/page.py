"""The report: what stands in each section of the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from capo_core.quality import count_explanations_in_train
from capo_core.report import (
    agreement_tables,
    comparison_tables,
    convergence_figures,
    cost_tables,
    data_tables,
    figures,
    findings,
    headline_tables,
    judge_tables,
    method_tables,
    rater_tables,
    result_figures,
    result_tables,
    stability_tables,
    style_cards,
    summary,
    training_figures,
)
from capo_core.report.assets import render_report_page
from capo_core.report.data import ALL, ReportData
from capo_core.report.examples import collect_examples, embed_json, list_methods
from capo_core.report.formats import plural
from capo_core.report.key_figures import choose_key_figures
from capo_core.report.tables import Cell, Table, build_table, text_cell
from capo_core.spreadsheet import neutralise_formulas

_SECTIONS = (
    ("summary", "Summary"),
    ("data", "Data"),
    ("agreement", "Agreement"),
    ("stability", "Stability of style"),
    ("training", "Training"),
    ("results", "Results"),
    ("comparisons", "Comparisons"),
    ("judge", "Judge and raters"),
    ("examples", "Examples"),
    ("cost", "Cost and time"),
    ("provenance", "How this was made"),
)

_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def render_report(data: ReportData) -> str:
    """Return the report as one self-contained HTML document.

    It refers to nothing outside itself (`render_self_contained`). Equal data give equal documents, byte for byte.

    Args:
        data: everything shown; see `ReportData`. Absent figures are written as "not measured".
    """
    context = {
        "data": data,
        "title": data.config.name,
        "kicker": "capo report",
        "sections": _SECTIONS,
        "facts": list_facts(data),
        "summary": summary.summarise(data),
        **_data_section(data),
        **_people_section(data),
        **_training_section(data),
        **_results_section(data),
        **_comparisons_section(data),
        **_judge_section(data),
        "examples": collect_examples(data.corpus, data.generations, data.config.task, list_methods(data.generations)),
        **_provenance_section(data),
    }
    return render_report_page("template.html.j2", context)


def list_facts(data: ReportData) -> list[str]:
    """Return what stands below the title: task, model, size of the corpus, seeds, date."""
    config, corpus = data.config, data.corpus
    facts = [
        f"task {config.task.name}",
        f"model {config.model.id}",
        f"{plural(len(data.annotators), 'annotator')}, {plural(corpus['item_id'].n_unique(), 'item')}, "
        f"{plural(corpus.height, 'annotation')}",
        plural(len(config.seeds), "seed"),
    ]
    created = data.provenance.get("created_at")
    return [*facts, f"made {created}"] if created else facts


def _data_section(data: ReportData) -> dict[str, Any]:
    """Return what the sections on data, splits and pairs show."""
    return {
        "counts": data_tables.tabulate_counts(data),
        "count_faults": data_tables.find_count_faults(data),
        "quarantine_reasons": data_tables.tabulate_quarantine_reasons(data.quarantine),
        "quarantine_rows": data_tables.tabulate_quarantine_rows(data.quarantine),
        "annotators": data_tables.tabulate_annotators(data),
        "splits": data_tables.tabulate_splits(data.corpus),
        "splits_hold": data_tables.check_splits(data.corpus),
        "n_repeated": count_explanations_in_train(data.corpus),
        "pairs": data_tables.tabulate_pairs(data.pair_counts),
    }


def _people_section(data: ReportData) -> dict[str, Any]:
    """Return what the sections on agreement, convergence, stability and style show."""
    subjectivity, rule = agreement_tables.describe_subjectivity(data.subjectivity)
    pairs = agreement_tables.tabulate_agreement_pairs(data.agreement)
    return {
        "agreement": agreement_tables.tabulate_agreement(data.agreement),
        "agreement_pairs": pairs,
        "contested": agreement_tables.tabulate_contested(data),
        "subjectivity": subjectivity,
        "subjectivity_rule": rule,
        "convergence_figure": convergence_figures.draw_convergence(data),
        "convergence_fits": convergence_figures.tabulate_fits(data),
        "advice": convergence_figures.list_advice(data),
        "stability": stability_tables.tabulate_stability(data),
        "strata": stability_tables.tabulate_strata(data),
        "annotator_stability": stability_tables.tabulate_annotator_stability(data),
        "stability_figure": figures.draw_stability(data),
        "features_figure": style_cards.draw_features(data),
        "features_caution": style_cards.caution_permutations(data),
        "features": style_cards.tabulate_features(data),
        "reliability": style_cards.tabulate_reliability(data),
        "cards": style_cards.build_cards(data),
    }


def _training_section(data: ReportData) -> dict[str, Any]:
    """Return what the section on training shows."""
    return {
        "training": training_figures.tabulate_training(data),
        "training_figure": training_figures.draw_training(data),
    }


def _results_section(data: ReportData) -> dict[str, Any]:
    """Return what the section on results shows."""
    keys = choose_key_figures(data.metrics)
    people = [name for name in sorted(data.metrics["annotator_id"].drop_nulls().unique().to_list()) if name != ALL]
    narrow = result_tables.narrow_to_leading(data.metrics, keys.group_size if keys else None)
    own = [(name, result_tables.tabulate_metrics(narrow, name, f"Figures of {name}")) for name in people]
    cross_described, cross_tables = method_tables.tabulate_cross_attribution(data, keys)
    interval = f"with {data.confidence_percent} intervals"
    return {
        "main_figure": result_figures.draw_main(data, keys),
        "headline_table": headline_tables.tabulate_headline(data, keys),
        "decisions": headline_tables.tabulate_decisions(data),
        "soft_labels": headline_tables.tabulate_soft_labels(data),
        "variants": headline_tables.tabulate_variants(data, keys),
        "attribution_figure": result_figures.draw_attribution(data, keys),
        "distances_figure": result_figures.draw_distances(data, keys),
        "annotators_figure": result_figures.draw_attribution_by_annotator(data, keys),
        "metrics_figure": result_figures.draw_metric_panels(data.metrics, f"The other figures by method, {interval}"),
        "results": result_tables.tabulate_metrics(data.metrics, ALL, "Mean over annotators, by method"),
        "results_by_annotator": own,
        "reading": result_tables.tabulate_reading(data.generations),
        "cross_attribution": cross_tables,
        "cross_described": cross_described,
    }


def _comparisons_section(data: ReportData) -> dict[str, Any]:
    """Return what the sections on comparisons and on cautions about methods show."""
    keys = choose_key_figures(data.metrics)
    return {
        "gain": findings.weigh_gain(data, keys) if keys else None,
        "verdicts": comparison_tables.list_verdicts(data, keys),
        "key_comparison": comparison_tables.tabulate_key_comparison(data, keys),
        "comparisons": comparison_tables.tabulate_comparisons(data.comparisons, data.alpha),
        "differences_figure": result_figures.draw_differences(data, keys),
        "style_distances": method_tables.tabulate_style_distances(data),
        "exclusions": method_tables.tabulate_exclusions(data),
        "retention_means": method_tables.tabulate_retention_means(data),
        "retention": method_tables.tabulate_retention(data),
        "profiles": method_tables.list_profiles(data),
    }


def _judge_section(data: ReportData) -> dict[str, Any]:
    """Return what the sections on judge and human raters show."""
    return {"judge": judge_tables.collect_judge(data), "raters": rater_tables.collect_raters(data)}


def _provenance_section(data: ReportData) -> dict[str, Any]:
    """Return what the last sections show: cost, configuration, hashes, and the figures in full precision."""
    return {
        "timings": cost_tables.tabulate_timings(data),
        "tokens": cost_tables.tabulate_tokens(data),
        "judge_usage": cost_tables.tabulate_judge_usage(data),
        "cost": cost_tables.say_cost(data),
        "full_tables": embed_json(write_full_tables(data)),
        "configuration": dump_configuration(data),
        "provenance": tabulate_provenance(data.provenance),
    }


def write_full_tables(data: ReportData) -> dict[str, str]:
    """Return the tables of figures as CSV in full precision, by file name; those without a row are left out."""
    tables = {
        "metrics": data.metrics,
        "comparisons": data.comparisons,
        "cross-attribution": data.cross_attribution,
        "judge-metrics": data.judge_metrics,
        "judge-comparisons": data.judge_comparisons,
        "judge-pairs": data.judge_pairs,
        "judge-agreement": data.judge_agreement,
        "rating-metrics": data.ratings_metrics,
        "rating-comparisons": data.ratings_comparisons,
    }
    return {
        f"{name}.csv": neutralise_formulas(table.sort(table.columns)).write_csv()
        for name, table in tables.items()
        if table is not None and not table.is_empty()
    }


def dump_configuration(data: ReportData) -> str:
    """Return the configuration as YAML, complete, with credentials in addresses blotted out."""
    text = yaml.safe_dump(data.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return _CREDENTIALS_IN_URL.sub("…", text)


def tabulate_provenance(provenance: Mapping[str, Any]) -> list[Table]:
    """Return one table per mapping or list in the provenance, after one of its single values (command apart)."""
    single = [(k, v) for k, v in provenance.items() if not isinstance(v, Mapping | list | tuple) and k != "command"]
    tables = [_provenance_table("This report", single)] if single else []
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            tables.append(_provenance_table(key, list(data_tables.flatten_mapping(value, spell=False))))
        elif isinstance(value, list | tuple):
            tables.append(_provenance_table(key, list(enumerate(value, start=1))))
    return tables


def _provenance_table(title: str, pairs: list[tuple[Any, Any]]) -> Table:
    """Return a table of names and values."""
    rows = [[text_cell(name), Cell(str(value), style="code")] for name, value in pairs]
    return build_table(title.replace("_", " ").capitalize(), ["What", "Value"], rows)
