"""The report: one self-contained HTML page on everything a run did and found, and one on two runs beside each other."""

from capo_core.report.comparison_page import ComparisonData, RunRecord, render_comparison
from capo_core.report.data import ReportData, StyleData
from capo_core.report.page import render_report
from capo_core.report.summary import write_summary

__all__ = [
    "ComparisonData",
    "ReportData",
    "RunRecord",
    "StyleData",
    "render_comparison",
    "render_report",
    "write_summary",
]
