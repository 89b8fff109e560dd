"""The report: one self-contained HTML page on everything a run did and found."""

from capo_core.report.data import ReportData, StyleData
from capo_core.report.page import render_report

__all__ = ["ReportData", "StyleData", "render_report"]
