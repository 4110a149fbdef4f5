"""Tables, figures and the self-contained HTML report of runs; figures take plain arrays too.

matplotlib, rich and jinja2 load when a figure or page is made, not when this package is imported;
the engine when run directories are read.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lastlayer.report.convergence import SolverCurve, convergence_figure, path_figure
from lastlayer.report.curves import Curve, learning_curves, rates_figure, reliability_figure
from lastlayer.report.dot_plot import comparison_figure
from lastlayer.report.heat_maps import confusion_figure, task_confusion_figure, task_matrix_figure
from lastlayer.report.maps import filtering_figure, map_overlays
from lastlayer.report.results_table import results_table
from lastlayer.report.retain import retain_confusion, retain_panels
from lastlayer.report.rows import Row, read_record
from lastlayer.report.style import save_figure
from lastlayer.report.surfaces import contour_surfaces
from lastlayer.report.text_table import TextTable

if TYPE_CHECKING:
    from lastlayer.report.page import write_comparison
    from lastlayer.report.run_files import collect_rows

__all__ = [
    "Curve",
    "Row",
    "SolverCurve",
    "TextTable",
    "collect_rows",
    "comparison_figure",
    "confusion_figure",
    "contour_surfaces",
    "convergence_figure",
    "filtering_figure",
    "learning_curves",
    "map_overlays",
    "path_figure",
    "rates_figure",
    "read_record",
    "reliability_figure",
    "results_table",
    "retain_confusion",
    "retain_panels",
    "save_figure",
    "task_confusion_figure",
    "task_matrix_figure",
    "write_comparison",
]

_READ_RUNS = {"collect_rows": "run_files", "write_comparison": "page"}


def __getattr__(name: str) -> Any:
    if name not in _READ_RUNS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_READ_RUNS[name]}"), name)
