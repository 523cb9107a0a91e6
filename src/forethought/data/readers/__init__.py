"""Any data file as a stream of rows: tables, JSON of any nesting, Parquet and Arrow, plain lines, archives, hubs."""

from forethought.data.readers.base import CONVERSATION_COLUMNS, OnBad, Row
from forethought.data.readers.columnar import read_datasets
from forethought.data.readers.rows import read_rows

__all__ = ["CONVERSATION_COLUMNS", "OnBad", "Row", "read_datasets", "read_rows"]
