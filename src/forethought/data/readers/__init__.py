"""Any data file as a stream of rows: tables, JSON of any nesting, Parquet and Arrow, plain lines, archives, hubs."""

from forethought.data.readers.base import CONVERSATION_COLUMNS, OnBad, Row
from forethought.data.readers.rows import read_rows
from forethought.data.readers.tables import read_datasets

__all__ = ["CONVERSATION_COLUMNS", "OnBad", "Row", "read_datasets", "read_rows"]
