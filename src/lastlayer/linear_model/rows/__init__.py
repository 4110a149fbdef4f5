"""Rows that need not be in memory, nor of this process: of files, of dask, of several processes.

:class:`Rows` is the protocol. A solver reads rows only by ``rows.reduce(step, ...)``, the sum over
blocks of rows of what a step returns; so an estimator's ``fit_rows`` takes all of these alike, and
``measure_rows`` tells how well their labels are predicted.
"""

from lastlayer.linear_model.rows.dask import rows_from_dask
from lastlayer.linear_model.rows.files import rows_from_files
from lastlayer.linear_model.rows.memory import rows_in_memory
from lastlayer.linear_model.rows.processes import DistributedRows, fit_distributed, shared_classes
from lastlayer.linear_model.rows.protocol import Block, Rows, Step

__all__ = [
    "Block",
    "DistributedRows",
    "Rows",
    "Step",
    "fit_distributed",
    "rows_from_dask",
    "rows_from_files",
    "rows_in_memory",
    "shared_classes",
]
