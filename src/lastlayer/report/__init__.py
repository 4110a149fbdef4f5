"""Figures, comparison tables and the self-contained HTML report; everything takes plain arrays.

matplotlib, rich and jinja2 load when a figure or page is made, not when this package is imported.
"""

from lastlayer.report.results_table import ComparisonRow, comparison_table
from lastlayer.report.convergence import SolverCurve, convergence_figure, path_figure
from lastlayer.report.curves import Curve, learning_curves
from lastlayer.report.reliability import confusion_figure, reliability_figure
from lastlayer.report.dot_plot import comparison_figure
from lastlayer.report.html import html_report
from lastlayer.report.incremental import IncrementalRow, incremental_table
from lastlayer.report.task_curves import accuracy_curve_figure, old_new_figure
from lastlayer.report.group_figures import (
    LongTailRow,
    class_accuracy_figure,
    long_tail_table,
    tail_confusion_figure,
)
from lastlayer.report.maps import filtering_figure, map_overlays
from lastlayer.report.rates import rates_figure
from lastlayer.report.retain import retain_confusion, retain_panels
from lastlayer.report.style import save_figure
from lastlayer.report.surfaces import contour_surfaces
from lastlayer.report.text_table import TextTable
from lastlayer.report.task_maps import task_confusion_figure, task_matrix_figure

__all__ = [
    "ComparisonRow",
    "Curve",
    "IncrementalRow",
    "LongTailRow",
    "SolverCurve",
    "TextTable",
    "accuracy_curve_figure",
    "class_accuracy_figure",
    "comparison_figure",
    "comparison_table",
    "confusion_figure",
    "contour_surfaces",
    "convergence_figure",
    "filtering_figure",
    "html_report",
    "incremental_table",
    "learning_curves",
    "long_tail_table",
    "map_overlays",
    "old_new_figure",
    "path_figure",
    "rates_figure",
    "reliability_figure",
    "retain_confusion",
    "retain_panels",
    "save_figure",
    "tail_confusion_figure",
    "task_confusion_figure",
    "task_matrix_figure",
]
